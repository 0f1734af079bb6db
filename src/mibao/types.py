"""Value types that several pillars share. Nothing here computes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class _FixedBytes:
    value: bytes
    size: ClassVar[int]

    def __post_init__(self) -> None:
        if not isinstance(self.value, bytes) or len(self.value) != self.size:
            got = f"{len(self.value)} bytes" if isinstance(self.value, bytes) else type(self.value).__name__
            raise ValueError(f"{type(self).__name__} takes {self.size} bytes, got {got}")

    def __str__(self) -> str:
        return self.value.hex()


@dataclass(frozen=True, slots=True)
class RandomId(_FixedBytes):
    """16 bytes that say nothing: drawn at random, or the fingerprint of a randomly drawn key."""

    size: ClassVar[int] = 16


@dataclass(frozen=True, slots=True)
class KeyedHash(_FixedBytes):
    """32 bytes of HMAC-SHA-256 under a secret key: equal for equal inputs, a guess cannot be tried without the key."""

    size: ClassVar[int] = 32


class Language(Enum):
    """Languages the package reads and writes."""

    ENGLISH = "en"
    CHINESE = "zh"


class EntityType(Enum):
    """Kinds of personal data, under Presidio's names where it has one."""

    PERSON = "PERSON"
    PHONE_NUMBER = "PHONE_NUMBER"
    EMAIL_ADDRESS = "EMAIL_ADDRESS"
    CN_RESIDENT_ID = "CN_RESIDENT_ID"
    MEDICAL_RECORD = "MEDICAL_RECORD"
    DATE_TIME = "DATE_TIME"
    PLACEHOLDER = "PLACEHOLDER"  # text that only looks like one of our own placeholders


class ComputeMode(Enum):
    """Which side of an encrypted computation is encrypted."""

    ENCRYPTED_DATA = "encrypted-data"
    ENCRYPTED_WEIGHTS = "encrypted-weights"
    ENCRYPTED_BOTH = "encrypted-both"


class Mechanism(Enum):
    """Noise mechanisms that the accountant knows."""

    DISTRIBUTED_DISCRETE_GAUSSIAN = "distributed-discrete-gaussian"
    NONE = "none"


class Strategy(Enum):
    """Federated strategies, as they stand in a ledger entry."""

    FEDSGD = "fedsgd"
    FEDAVG = "fedavg"


class MaskingScheme(Enum):
    """How the addends of a secure sum are hidden."""

    PAIRWISE = "pairwise"


class Refusal(Enum):
    """Why a sealed object was not opened."""

    ALTERED = "altered"
    WRONG_KEY = "wrong-key"
    WRONG_SIGNER = "wrong-signer"
    OLDER_VERSION = "older-version"
    EQUIVOCATION = "equivocation"  # one version, signed twice
    UNKNOWN_VERSION = "unknown-version"  # the reader asked for a model opened before
    NOT_SEALED = "not-sealed"
    UNREACHABLE = "unreachable"  # the storage, a key, or the reader's memory of versions could not be had
    WRONG_USE = "wrong-use"  # the caller asked for what there is not
