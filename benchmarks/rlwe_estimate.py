"""What it would take to break a mask: an estimate of our own, not a run of the lattice-estimator.

``python -m benchmarks.rlwe_estimate`` prints ``benchmarks/rlwe_estimate.txt``. It covers the primal attack (uSVP and
BDD, with the secret scaled to the error's width) and the plain dual distinguisher; hybrid and meet-in-the-middle
attacks are not in it, nor is any use of the ring's structure. With the sums of two clients' secrets and errors given
away, each is taken as a Gaussian of half the variance (docs/spec/secagg.md, section 14).

Costs are counted three ways: core-SVP; the convention of the homomorphic encryption guidelines; and the gate count of
MATZOV, which is the lattice-estimator's default. Kyber512 is a yardstick for the last: the estimator's published
figures for it are 143.8 (uSVP, beta 406), 140.3 (BDD, beta 391, eta 421) and 139.2 (dual hybrid).

Sources: Albrecht, Player and Scott, J. Math. Cryptology 2015; Alkim et al., USENIX Security 2016 (the 2016 estimate,
core-SVP); Becker et al., SODA 2016 (0.292 beta); Chen, thesis 2013 (delta of beta); MATZOV, "Report on the Security of
LWE", 2022 (gates of a sieve, dimensions for free after Ducas, EUROCRYPT 2018, and sieves a tour).
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
    modulus_bits: float
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


def matzov(beta: int, size: int) -> float:
    """``log2`` of the gates of a progressive BKZ of this block size; of one sieve where ``size`` is ``beta``."""
    slope, start = 0.29613500308205365, 20.387885985467914
    overhead = 1.0 / (1.0 - 2.0**-slope)
    free = max(beta * math.log(4.0 / 3.0) / math.log(beta / (2.0 * math.pi * math.e)), 0.0)
    return 2.0 * math.log2(overhead) + math.log2(max(size - beta, 1)) + slope * (beta - free) + start


def bdd(instance: Instance, usvp_beta: int) -> float:
    """``log2`` gates of a reduction and one sieve of the last block: less reduction, a larger sieve than uSVP."""
    best = math.inf
    n = instance.dimension
    for samples in range(n // 4, min(MAX_SAMPLES, 3 * n), 32):
        size = samples + n + 1
        volume = (samples * instance.modulus_bits + n * math.log2(instance.error_std / instance.secret_std)) / size
        for beta in range(max(60, usvp_beta - 40), usvp_beta + 20):
            eta, most = usvp_beta - 40, 2 * usvp_beta
            while eta < most and not _last_block_opens(instance, eta, size, log2_delta(beta), volume):
                eta += 1
            if eta < most:
                best = min(best, _log2_sum(matzov(beta, size), matzov(eta, eta)))
    return best


def _last_block_opens(instance: Instance, eta: int, size: int, slope: float, volume: float) -> bool:
    """Whether the projected secret is shorter than what a lattice of the last block's volume should hold."""
    ball = math.lgamma(eta / 2.0 + 1.0) / (eta * math.log(2.0)) - math.log2(math.sqrt(math.pi))
    return math.log2(math.sqrt(eta) * instance.error_std) <= ball + (eta - size) * slope + volume


def _log2_sum(first: float, second: float) -> float:
    high, low = max(first, second), min(first, second)
    return high + math.log2(1.0 + 2.0 ** (low - high))


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
    kyber = Instance(
        name="yardstick: Kyber512 (estimator: 143.8, 140.3)", dimension=512, modulus_bits=math.log2(3329),
        secret_std=math.sqrt(1.5), error_std=math.sqrt(1.5),
    )  # fmt: skip
    return [*found, yardstick, kyber]


def lines() -> list[str]:
    """The table."""
    shown = ["An estimate of our own, not a run of the lattice-estimator. Bits, classical.", ""]
    shown.append(
        f"{'instance':<46} {'beta':>5} {'core-SVP':>9} {'dual':>6} {'guidelines':>11} {'MATZOV uSVP':>12} {'BDD':>6}"
    )
    for instance in instances():
        beta, size = usvp(instance)
        guidelines = 0.292 * beta + 16.4 + math.log2(8.0 * size)
        shown.append(
            f"{instance.name:<46} {beta:>5} {0.292 * beta:>9.1f} {dual(instance):>6.1f} {guidelines:>11.1f} "
            f"{matzov(beta, size):>12.1f} {bdd(instance, beta):>6.1f}"
        )
    shown += [
        "",
        "guidelines: 0.292 beta + 16.4 + log2(8 d), under which the first yardstick's 128 bits are stated.",
        "MATZOV: gates as the lattice-estimator counts them by default. dual: in core-SVP, to compare with uSVP's.",
    ]
    return shown


if __name__ == "__main__":
    print("\n".join(lines()))
