"""Step 1: a bilingual referral note, masked with consistent pseudonyms and restored."""

from __future__ import annotations

from mibao import deid
from mibao.deid import Pseudonymiser
from mibao.deid.pseudonyms import stem_of
from mibao.demo import notes
from mibao.demo.outcome import Cost, Deidentified
from mibao.demo.surroundings import Surroundings
from mibao.events import Event
from mibao.types import EntityType

SCOPE = "mibao demo: one referral"
VAULT_NAME = "note.vault"
VAULT_KEY_NAME = "note.key"


def deidentify(around: Surroundings) -> tuple[Deidentified, Cost, list[Event]]:
    """The note before and after, what masking it cost, and what goes on the ledger."""
    texts = notes.REFERRAL
    key = around.randomness(32)
    session = Pseudonymiser.open(around.folder / VAULT_NAME, key=key, scope=SCOPE)
    for names in notes.ONE_PERSON_EACH:
        session.link(EntityType.PERSON, *names)
    started = around.clock_s()
    masked = [session.mask(text) for text in texts]
    seconds = around.clock_s() - started
    restored = [deid.restore(each.text, vault=session.vault) for each in masked]
    before, after = "\n\n".join(texts), "\n\n".join(each.text for each in masked)
    (around.folder / "note.txt").write_text(before, encoding="utf-8")
    (around.folder / "note.masked.txt").write_text(after, encoding="utf-8")
    session.close()
    around.keep_secret(VAULT_KEY_NAME, key.hex())
    report = Deidentified(
        original=before,
        masked=after,
        restored=[each.text for each in restored] == list(texts),
        findings=sum(len(each.findings) for each in masked),
        distinct=len({stem_of(token) for each in masked for token in each.placeholders}),
    )
    cost = Cost(
        protection="De-identified note",
        plain_seconds=0.0,
        protected_seconds=seconds,
        plain_bytes=len(before.encode()),
        protected_bytes=len(after.encode()),
    )
    return report, cost, [*(event for each in masked for event in each.events), *(each.event for each in restored)]
