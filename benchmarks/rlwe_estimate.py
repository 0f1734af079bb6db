"""What it would take to break a mask: an estimate of our own, not a run of the lattice-estimator.

``python -m benchmarks.rlwe_estimate`` prints ``benchmarks/rlwe_estimate.txt``. It covers the primal attack (uSVP, with
the secret scaled to the error's width) and the plain dual distinguisher; BDD, hybrid and meet-in-the-middle attacks are
not in it, nor is any use of the ring's structure. With the sums of two clients' secrets and errors given away, each is
taken as a Gaussian of half the variance (docs/spec/secagg.md, section 14).

Sources: Albrecht, Player and Scott, J. Math. Cryptology 2015; Alkim et al., USENIX Security 2016, section 6 (2016
estimate, core-SVP); Becker et al., SODA 2016 (0.292 beta); Chen, thesis 2013 (delta of beta).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mibao.secagg.rlwe_parameters import RING_DEGREE, ParameterSet

MAX_SAMPLES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An LWE instance: dimension, modulus, and the widths of secret and error."""

    name: str
    dimension: int
    modulus_bits: int
    secret_std: float
    error_std: float


def log2_delta(beta: int) -> float:
    """``log2`` of the root Hermite factor that blocks of ``beta`` reach."""
    inner = (math.pi * beta) ** (1.0 / beta) * beta / (2.0 * math.pi * math.e)
    return math.log2(inner) / (2.0 * (beta - 1))


def usvp(instance: Instance) -> tuple[int, int]:
    """The smallest block size that finds the secret, and the lattice's dimension, over all numbers of samples."""
    best = (1 << 30, 0)
    n = instance.dimension
    for samples in range(n // 4, min(MAX_SAMPLES, 3 * n), 16):
        size = samples + n + 1
        volume = (samples * instance.modulus_bits + n * math.log2(instance.error_std / instance.secret_std)) / size
        low, high = 60, 2000
        while low < high:
            beta = (low + high) // 2
            found = math.log2(math.sqrt(beta) * instance.error_std) <= (2 * beta - size - 1) * log2_delta(beta) + volume
            low, high = (low, beta) if found else (beta + 1, high)
        best = min(best, (low, size))
    return best


def dual(instance: Instance) -> float:
    """``log2`` of the cost of the plain distinguisher in core-SVP, sieving giving ``2**(0.2075 beta)`` vectors."""
    best = math.inf
    n = instance.dimension
    for beta in range(100, 1200, 4):
        for samples in range(n // 4, min(MAX_SAMPLES, 3 * n), 64):
            size = samples + n
            length = size * log2_delta(beta) + n * (
                instance.modulus_bits + math.log2(instance.secret_std / instance.error_std)
            ) / size  # fmt: skip
            shift = 2.0 ** (length - instance.modulus_bits) * instance.error_std
            advantage = -2.0 * math.pi**2 * shift**2 / math.log(2.0)
            best = min(best, 0.292 * beta + max(0.0, -2.0 * advantage - 0.2075 * beta))
    return best


def instances() -> list[Instance]:
    """Both sets, without and with the hint, and the guidelines' 128-bit set as a yardstick."""
    found = []
    for parameters in ParameterSet:
        std = math.sqrt(parameters.variance)
        for what, width in (("", std), (", with the hint", std / math.sqrt(2.0))):
            found.append(
                Instance(
                    name=parameters.id + what, dimension=RING_DEGREE, modulus_bits=parameters.modulus_bits,
                    secret_std=width, error_std=width,
                )
            )  # fmt: skip
    yardstick = Instance(
        name="yardstick: N = 2048, q = 2^54, ternary", dimension=2048, modulus_bits=54,
        secret_std=math.sqrt(2.0 / 3.0), error_std=3.19,
    )  # fmt: skip
    return [*found, yardstick]


def lines() -> list[str]:
    """The table."""
    shown = ["An estimate of our own, not a run of the lattice-estimator. Bits, classical.", ""]
    shown.append(f"{'instance':<40} {'beta':>5} {'core-SVP':>9} {'dual':>6} {'gates':>6}")
    for instance in instances():
        beta, size = usvp(instance)
        gates = 0.292 * beta + 16.4 + math.log2(8.0 * size)
        shown.append(f"{instance.name:<40} {beta:>5} {0.292 * beta:>9.1f} {dual(instance):>6.1f} {gates:>6.1f}")
    shown += [
        "",
        "gates: 0.292 beta + 16.4 + log2(8 d), the convention under which the yardstick's 128 bits are stated.",
    ]
    return shown


if __name__ == "__main__":
    print("\n".join(lines()))
