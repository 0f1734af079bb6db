"""An outcome in which every promise was kept, to be broken one promise at a time."""

from mibao.demo.outcome import (
    REFUSALS,
    Computed,
    Cost,
    Deidentified,
    HospitalShare,
    Outcome,
    Recorded,
    SealedModel,
    Trained,
)

COMPUTED = Computed(rows=171, agreement=1.0, max_error=3e-6, seconds=0.5, who_could_read=("compute host: nothing",))
KEPT = Outcome(
    deid=Deidentified(
        original="before 林晓雨", masked="after <PERSON_AAAAAAAAAA>", restored=True, findings=2, distinct=1
    ),
    federated=Trained(
        hospitals=(HospitalShare(name="Harbour", records=100, malignant=0.25),),
        test_records=171,
        accuracy=0.96,
        pooled_accuracy=0.98,
        fedavg_accuracy=0.97,
        fedavg_rounds=10,
        epsilon=3.9,
        delta=1e-5,
        noise_multiplier=7.5,
        rounds=40,
        dropouts=((12, "Lakeside"),),
        sums=50,
        committee=5,
        sum_exact=True,
    ),
    sealed=SealedModel(byte_identical=True, refused=REFUSALS, recipient_suite="ML-KEM-768", signer_suite="Ed25519"),
    clear_weights=COMPUTED,
    encrypted_weights=COMPUTED,
    ledger=Recorded(entries=10, verified=True, tampered_index=5, found_index=5),
    costs=(
        Cost(protection="A", protected_seconds=1.5, plain_bytes=10, protected_bytes=20_000),
        Cost(
            protection="B",
            plain_seconds=0.1,
            protected_seconds=0.2,
            plain_bytes=1,
            protected_bytes=2,
            plain_accuracy=0.98,
            protected_accuracy=0.96,
            epsilon=3.9,
        ),
    ),
    seconds=5.0,
)
