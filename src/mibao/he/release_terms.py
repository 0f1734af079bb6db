"""What a circuit is compiled to release, and what is proven of its answers: both stand in the circuit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mibao.codec.canonical import Value
from mibao.errors import InputError, IntegrityError

MIN_STATISTICAL_BITS = 40
MAX_STATISTICAL_BITS = 128
MAX_ANSWERS = 1 << 24
PRIMES_A_LEVEL = 2  # a scale that leaves room for the noise takes more than one prime of 60 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """How many answers of one key may be handed to others, and how little they may tell of the key.

    Attributes:
        answers_limit: Ciphertexts, over a key's whole life.
        statistical_bits: 40 or more.
    """

    answers_limit: int
    statistical_bits: int = MIN_STATISTICAL_BITS

    def __post_init__(self) -> None:
        """Refuse what promises too little. Raises ``InputError`` for fewer than 40 bits, no answers or too many."""
        if not MIN_STATISTICAL_BITS <= self.statistical_bits <= MAX_STATISTICAL_BITS:
            raise InputError(
                f"release: expected {MIN_STATISTICAL_BITS} to {MAX_STATISTICAL_BITS} statistical bits, "
                f"got {self.statistical_bits}"
            )
        if not 1 <= self.answers_limit <= MAX_ANSWERS:
            raise InputError(f"release: expected a limit of 1 to {MAX_ANSWERS} answers, got {self.answers_limit}")

    def covers(self, other: Release) -> bool:
        """Whether room for this is room for ``other``."""
        return other.answers_limit <= self.answers_limit and other.statistical_bits <= self.statistical_bits

    def __str__(self) -> str:
        return f"he.Release(answers_limit={self.answers_limit}, statistical_bits={self.statistical_bits})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseTerms:
    """What a circuit leaves room for.

    Attributes:
        release: What was asked for.
        noise: Proven bound on what depends on the key in an answer, in units of the scaled message.
        message: Proven bound on an answer's entries.
    """

    release: Release
    noise: float
    message: float

    def __post_init__(self) -> None:
        """Refuse bounds that bound nothing. Raises ``InputError``."""
        if not (0 < self.noise < math.inf and 0 <= self.message < math.inf):
            raise InputError("release: expected positive, finite bounds of an answer's noise and of its entries")

    def to_value(self) -> dict[str, Value]:
        """The canonical map that stands in a circuit's header."""
        return {
            "answers_limit": self.release.answers_limit,
            "statistical_bits": self.release.statistical_bits,
            "noise": float(self.noise),
            "message": float(self.message),
        }

    @classmethod
    def from_value(cls, value: Value) -> ReleaseTerms:
        """The reverse. Raises ``IntegrityError`` when a field is missing, surplus or malformed."""
        if not isinstance(value, dict) or set(value) != set(_FIELDS):
            raise IntegrityError(f"release: expected the fields {', '.join(_FIELDS)}")
        held: dict[str, Any] = dict(value)
        for name, kind in _FIELDS.items():
            if type(held[name]) is not kind:
                raise IntegrityError(f"release: field {name} is malformed")
        try:
            release = Release(answers_limit=held["answers_limit"], statistical_bits=held["statistical_bits"])
            return cls(release=release, noise=held["noise"], message=held["message"])
        except InputError as error:
            raise IntegrityError(f"circuit: {error}") from error


_FIELDS: dict[str, type] = {"answers_limit": int, "statistical_bits": int, "noise": float, "message": float}
