"""Signers, events and ledgers that the ledger's tests share."""

import random
import sqlite3
from pathlib import Path

from mibao import ledger
from mibao.crypto.keys import SignerPrivateKey, SignerSuite, generate_signer
from mibao.events import CircuitEvaluated, Event, ModelRefused, PersonalDataMasked, PrivacySpent, RoundTrained
from mibao.types import ComputeMode, EntityType, KeyedHash, Language, RandomId, Refusal, Strategy

ORIGIN = "mibao.test/hospital-a"
START_MS = 1_795_000_000_000


def signer(number: int = 1) -> SignerPrivateKey:
    return generate_signer(SignerSuite.ED25519, bytes([number]) * 32)


def hybrid_signer() -> SignerPrivateKey:
    return generate_signer(SignerSuite.ED25519_MLDSA65, bytes(64))


def events(count: int, *, seed: int = 0) -> list[Event]:
    draw = random.Random(seed)  # noqa: S311 - the same events in every run
    return [_event(number, draw) for number in range(count)]


def write(path: Path, *, count: int, batch: int = 100, seed: int = 0, key: SignerPrivateKey | None = None) -> Path:
    """A closed ledger of ``count`` entries whose clock ticks a second a batch."""
    ticks = iter(range(START_MS, START_MS + 1000 * (count + 1), 1000))
    with ledger.Log.create(path, signer=key or signer(), origin=ORIGIN, clock_ms=lambda: next(ticks)) as log:
        pending = events(count, seed=seed)
        for start in range(0, count, batch):
            log.append(pending[start : start + batch])
    return path


def alter(path: Path, *statements: str | tuple[str, tuple[object, ...]]) -> Path:
    """Change a ledger behind its back, as anyone who can write to the file can."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        text, values = (statement, ()) if isinstance(statement, str) else statement
        connection.execute(text, values)
    connection.close()
    return path


def _event(number: int, draw: random.Random) -> Event:
    session = RandomId(draw.randbytes(16))
    match number % 5:
        case 0:
            return RoundTrained(session=session, strategy=Strategy.FEDSGD, round=number, invited=5, survivors=4)
        case 1:
            return PrivacySpent(session=session, releases=number, epsilon=draw.random(), delta=1e-5)
        case 2:
            return PersonalDataMasked(
                scope=KeyedHash(draw.randbytes(32)),
                language=Language.CHINESE,
                entity=EntityType.PERSON,
                findings=number,
                distinct=1,
            )
        case 3:
            return ModelRefused(reason=Refusal.WRONG_SIGNER)
        case _:
            return CircuitEvaluated(
                circuit=session,
                mode=ComputeMode.ENCRYPTED_BOTH,
                rows=number,
                ring_degree=8192,
                modulus_bits=218,
                request_bytes=draw.randrange(1 << 30),
                answer_bytes=-1,
            )
