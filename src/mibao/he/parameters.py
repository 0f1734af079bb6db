"""Ring size and modulus of a CKKS circuit, held to 128 bits of security against the published table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from mibao.errors import InputError

# Largest modulus, special prime included, for a ternary secret at 128 bits (classical), by ring degree.
# Source: Bossuat et al., "Security Guidelines for Implementing Homomorphic Encryption", 2024, table 4.2.
MAX_MODULUS_BITS: Mapping[int, int] = MappingProxyType({2048: 53, 4096: 106, 8192: 214, 16384: 430, 32768: 868})
SECURITY_BITS = 128
MIN_PRIME_BITS = 20
MAX_PRIME_BITS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What fixes ciphertext size, speed, precision and security.

    Attributes:
        ring_degree: N; a ciphertext carries N / 2 numbers.
        modulus_bits: Size of each prime. With two or more, the last is special: it serves key switching only.
        scale_bits: Fresh data are multiplied by ``2**scale_bits`` before they are rounded.
    """

    ring_degree: int
    modulus_bits: tuple[int, ...]
    scale_bits: int

    def __post_init__(self) -> None:
        """Refuse what the table does not allow.

        Raises:
            InputError: the ring degree is not in the table, a prime is out of range, the whole modulus is too large
                for 128 bits of security, or the scale does not fit the modulus.
        """
        allowed = MAX_MODULUS_BITS.get(self.ring_degree)
        if allowed is None:
            raise InputError(f"parameters: expected a ring degree of {list(MAX_MODULUS_BITS)}, got {self.ring_degree}")
        if not self.modulus_bits or not all(MIN_PRIME_BITS <= bits <= MAX_PRIME_BITS for bits in self.modulus_bits):
            raise InputError(f"parameters: expected primes of {MIN_PRIME_BITS} to {MAX_PRIME_BITS} bits")
        total = sum(self.modulus_bits)
        if total > allowed:
            raise InputError(
                f"parameters: a modulus of {total} bits is below {SECURITY_BITS}-bit security at ring degree "
                f"{self.ring_degree}, which allows {allowed}"
            )
        if not 1 <= self.scale_bits < self.data_modulus_bits:
            raise InputError(f"parameters: expected a scale of 1 to {self.data_modulus_bits - 1} bits")

    @property
    def slots(self) -> int:
        """Numbers in one ciphertext."""
        return self.ring_degree // 2

    @property
    def data_primes(self) -> tuple[int, ...]:
        """Sizes of the primes that carry data, first to last; rescaling drops the last of them."""
        return self.modulus_bits[:-1] if len(self.modulus_bits) > 1 else self.modulus_bits

    @property
    def data_modulus_bits(self) -> int:
        """Bits of modulus under fresh data."""
        return sum(self.data_primes)

    def primes(self) -> tuple[int, ...]:
        """The primes that carry data, first to last."""
        return self.all_primes()[: len(self.data_primes)]

    def special_prime(self) -> int | None:
        """The prime that serves key switching only, where there is one."""
        return self.all_primes()[-1] if len(self.modulus_bits) > 1 else None

    def all_primes(self) -> tuple[int, ...]:
        """All primes, in the order of ``modulus_bits``.

        For each size the largest primes of so many bits that are 1 modulo 2N, in descending order, the special one
        among them: those that SEAL's ``CoeffModulus::Create`` takes.
        """
        sizes = self.modulus_bits
        found = {bits: list(_largest_primes(bits, self.ring_degree, sizes.count(bits))) for bits in set(sizes)}
        # SEAL takes each size's primes from the largest up: the last of a list goes to the first that asks.
        return tuple(found[bits].pop() for bits in self.modulus_bits)

    @property
    def depth(self) -> int:
        """How often a product can be rescaled."""
        return len(self.data_primes) - 1


@lru_cache(maxsize=1024)
def _largest_primes(bits: int, ring_degree: int, count: int) -> tuple[int, ...]:
    """Descending. Raises ``InputError`` when there are too few."""
    candidate = (1 << bits) + 1 - 2 * ring_degree
    found: list[int] = []
    while len(found) < count:
        if candidate >> (bits - 1) == 0:
            raise InputError(f"parameters: too few primes of {bits} bits at ring degree {ring_degree}")
        if _is_prime(candidate):
            found.append(candidate)
        candidate -= 2 * ring_degree
    return tuple(found)


def _is_prime(number: int) -> bool:
    """Miller-Rabin with bases that leave no composite under 2**64. Source: Sinclair, 2011."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 325, 9375, 28178, 450775, 9780504, 1795265022):
        power = pow(base % number, odd, number)
        if power in (0, 1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True
