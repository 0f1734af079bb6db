"""What each step of the demo found, and whether it kept its promise.

Every figure the screen or ``--json`` shows stands in one of these records; ``Outcome.failures`` is the one place
that decides whether the demo succeeded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from mibao.types import Refusal

MAX_ACCURACY_GAP = 0.03
MAX_EPSILON = 8.0
MAX_LOGIT_ERROR = 1e-3
REFUSALS = (Refusal.ALTERED, Refusal.WRONG_KEY, Refusal.WRONG_SIGNER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One protection beside the same work without it. ``None``: the figure has no meaning for this protection."""

    protection: str
    plain_seconds: float | None = None
    protected_seconds: float
    plain_bytes: int
    protected_bytes: int
    plain_accuracy: float | None = None
    protected_accuracy: float | None = None
    epsilon: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deidentified:
    """The referral note before and after, and whether it came back exactly."""

    original: str
    masked: str
    restored: bool
    findings: int
    distinct: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HospitalShare:
    """One hospital's part of the records: how many, and the share of them that is malignant."""

    name: str
    records: int
    malignant: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The federated model beside the pooled one; accuracies on records that no hospital trained on."""

    hospitals: tuple[HospitalShare, ...]
    test_records: int
    accuracy: float
    pooled_accuracy: float
    fedavg_accuracy: float
    fedavg_rounds: int
    epsilon: float
    delta: float
    noise_multiplier: float
    rounds: int
    dropouts: tuple[tuple[int, str], ...]
    sums: int
    committee: int
    sum_exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedModel:
    """The sealed model: does it come back byte for byte, and which attempts were refused."""

    byte_identical: bool
    refused: tuple[Refusal, ...]
    recipient_suite: str
    signer_suite: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """One encrypted evaluation of every test row, beside the plaintext model."""

    rows: int
    agreement: float
    max_error: float
    seconds: float
    who_could_read: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The ledger: verified as it is, and with one entry altered in a copy."""

    entries: int
    verified: bool
    tampered_index: int
    found_index: int | None


StepResult: TypeAlias = Deidentified | Trained | SealedModel | tuple[Computed, Computed] | Recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything the demo found."""

    deid: Deidentified
    federated: Trained
    sealed: SealedModel
    clear_weights: Computed
    encrypted_weights: Computed
    ledger: Recorded
    costs: tuple[Cost, ...]
    seconds: float

    def failures(self) -> tuple[str, ...]:
        """The promises that were not kept, in words; empty when the demo succeeded."""
        trained = self.federated
        checks = {
            "the note was not restored exactly": self.deid.restored,
            "the federated model is more than 3 points below the pooled one": (
                trained.pooled_accuracy - trained.accuracy <= MAX_ACCURACY_GAP
            ),
            "epsilon is not finite, or above 8": math.isfinite(trained.epsilon) and 0 < trained.epsilon <= MAX_EPSILON,
            "a secure sum was not exact": trained.sum_exact,
            "no hospital dropped out": len(trained.dropouts) > 0,
            "the opened model is not the sealed one": self.sealed.byte_identical,
            "an altered file, a wrong key or a wrong signer was accepted": (set(self.sealed.refused) == set(REFUSALS)),
            "encrypted data: a row was classified differently": self.clear_weights.agreement == 1.0,
            "encrypted data: the logits are too far off": self.clear_weights.max_error <= MAX_LOGIT_ERROR,
            "encrypted weights: a row was classified differently": self.encrypted_weights.agreement == 1.0,
            "encrypted weights: the logits are too far off": self.encrypted_weights.max_error <= MAX_LOGIT_ERROR,
            "the ledger does not verify": self.ledger.verified and self.ledger.entries > 0,
            "the altered entry was not named": self.ledger.found_index == self.ledger.tampered_index,
        }
        return tuple(promise for promise, kept in checks.items() if not kept)

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.failures()

    def to_json(self) -> dict[str, object]:
        """The object that ``mibao demo --json`` prints; a figure that is not finite stands as null."""
        trained = self.federated
        return {
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
            "deid": {"restored": self.deid.restored},
            "federated": {
                "accuracy": _finite(trained.accuracy),
                "pooled_accuracy": _finite(trained.pooled_accuracy),
                "fedavg_accuracy": _finite(trained.fedavg_accuracy),
                "epsilon": _finite(trained.epsilon),
                "delta": trained.delta,
                "rounds": trained.rounds,
                "dropouts": len(trained.dropouts),
                "sum_exact": trained.sum_exact,
            },
            "sealed": {
                "byte_identical": self.sealed.byte_identical,
                "refused": [refusal.value for refusal in self.sealed.refused],
            },
            "he": {
                "clear_weights": _computed_json(self.clear_weights),
                "encrypted_weights": _computed_json(self.encrypted_weights),
            },
            "ledger": {
                "entries": self.ledger.entries,
                "tampered_index": self.ledger.tampered_index,
                "found_index": self.ledger.found_index,
            },
        }


def _computed_json(computed: Computed) -> dict[str, float | None]:
    return {
        "agreement": _finite(computed.agreement),
        "max_error": _finite(computed.max_error),
        "seconds": round(computed.seconds, 3),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
