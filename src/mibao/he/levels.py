"""The smallest parameters and best scales that keep a linear circuit's error under a wanted bound.

A product of data at scale ``2**a`` and weights at ``2**b`` must stay under half the modulus, so ``a + b`` is fixed by
the largest possible logit; how it is split between ``a`` and ``b`` is chosen to make the predicted error least.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mibao.errors import InputError
from mibao.he.parameters import Parameters
from mibao.types import ComputeMode

# Smallest first: one prime without key switching, then one level, then one level with room for wide ranges.
LADDER: tuple[tuple[int, tuple[int, ...]], ...] = ((2048, (53,)), (4096, (38, 30, 38)), (8192, (58, 40, 58)))
NOISE_STD = 3.24  # of fresh encryptions: SEAL's centered binomial, for the standard's 3.2
# Two logits in a thousand million lie further out, if their error is normal, and if it is Laplace-distributed.
NORMAL_SIGMAS = 6.0
LAPLACE_SIGMAS = 14.2
MIN_SCALE_BITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Parameters, the weights' scale, and the error they should keep."""

    parameters: Parameters
    weight_scale_bits: int
    predicted_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a linear circuit asks of its parameters: its shape and its ranges.

    ``logit_bound`` is the largest magnitude a logit can take, ``weight_norm`` the largest L2 norm of one output's
    weights. Where weights are encrypted the host sees the parameters, so pass figures that may be known.
    """

    mode: ComputeMode
    features: int
    input_bound: float
    logit_bound: float
    weight_norm: float


def choose_levels(demand: Demand, *, max_error: float) -> Levels:
    """The first rung of the ladder whose predicted error is at most ``max_error``, at its best split of scales.

    Raises:
        InputError: no rung suffices; the message says which error the best one would have.
    """
    best: Levels | None = None
    for ring_degree, modulus_bits in LADDER:
        if demand.mode is ComputeMode.ENCRYPTED_BOTH and len(modulus_bits) < 2:
            continue  # products of ciphertexts are relinearised, which takes a special prime
        candidates = _splits(demand, ring_degree, modulus_bits)
        for levels in candidates:
            if best is None or levels.predicted_error < best.predicted_error:
                best = levels
        if best is not None and best.predicted_error <= max_error:
            return best
    reached = "none fits" if best is None else f"the best keeps {best.predicted_error:.1e}"
    raise InputError(
        f"levels: no parameters keep the error under {max_error:.1e} ({reached}); "
        "narrow input_bound or allow more error"
    )


def _splits(demand: Demand, ring_degree: int, modulus_bits: tuple[int, ...]) -> list[Levels]:
    widest = Parameters(ring_degree=ring_degree, modulus_bits=modulus_bits, scale_bits=1)
    # Two bits of headroom: one for the sign, one so that noise and the primes' distance from 2**bits cannot wrap.
    product_bits = widest.data_modulus_bits - 2 - math.ceil(math.log2(max(demand.logit_bound, 1.0)))
    levels = []
    for scale_bits in range(MIN_SCALE_BITS, product_bits - MIN_SCALE_BITS + 1):
        parameters = Parameters(ring_degree=ring_degree, modulus_bits=modulus_bits, scale_bits=scale_bits)
        weight_bits = product_bits - scale_bits
        error = predicted_error(demand, parameters, weight_bits)
        levels.append(Levels(parameters=parameters, weight_scale_bits=weight_bits, predicted_error=error))
    return levels


def predicted_error(demand: Demand, parameters: Parameters, weight_scale_bits: int) -> float:
    """A bound on one logit's error that fails about twice in a thousand million, rounding of clear weights included.

    Fresh noise is normal in a slot. Rescaling rounds both components and the second is multiplied by the secret, whose
    size differs from slot to slot: a product of two normal variables, with the heavier tail of a Laplace variable. Key
    switching is left out: its noise enters at the product's scale and lies far under the rescaling's.

    Source: Cheon, Kim, Kim, Song, ASIACRYPT 2017, section 3, with these tails in place of the worst-case bounds.
    """
    degree = parameters.ring_degree
    slot_std = NOISE_STD * math.sqrt(degree / 2)  # a slot's real part sums N coefficients at mean square 1/2
    rounding_std = math.sqrt(degree / 24)  # an encoded vector is rounded to integers: variance 1/12
    data_std = math.hypot(slot_std, rounding_std) if demand.mode is not ComputeMode.ENCRYPTED_WEIGHTS else rounding_std
    record_norm = demand.input_bound * math.sqrt(demand.features)
    variance = (data_std * demand.weight_norm / 2.0**parameters.scale_bits) ** 2
    worst = 0.0
    if demand.mode is ComputeMode.ENCRYPTED_DATA:
        worst = demand.features * demand.input_bound / 2.0 ** (weight_scale_bits + 1)
    else:
        variance += (math.hypot(slot_std, 0.5) * record_norm / 2.0**weight_scale_bits) ** 2
    if parameters.depth:
        rescaled_bits = parameters.scale_bits + weight_scale_bits - parameters.data_primes[-1]
        rescale_std = math.sqrt((1 + 2 * degree / 3) / 12 * degree / 2)  # a ternary secret has about 2N/3 non-zeros
        worst += LAPLACE_SIGMAS * rescale_std / 2.0**rescaled_bits
    return NORMAL_SIGMAS * math.sqrt(variance) + worst
