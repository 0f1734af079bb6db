"""The sign of a number as a composition of polynomials: how comparisons are made on ciphertexts.

One polynomial that tells 0.001 from -0.001 would need a degree in the thousands. A composition of small ones needs a
few more products in a row and far fewer in all: each stage is the best odd polynomial for the sign on the interval that
the stage before leaves.

Source: Lee, Lee, No, "Minimax Approximation of Sign Function by Composite Polynomial for Homomorphic Comparison",
IEEE TDSC 2021, section 3; the idea: Cheon, Kim, Kim, ASIACRYPT 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from numpy.polynomial import chebyshev

from mibao.errors import InputError
from mibao.he.minimax import depth_of, exchange
from mibao.he.network import Basis, Polynomial
from mibao.he.reference import polynomial_values

MAX_STAGES_DEPTH = 24
# The largest degree that each depth allows: lower ones of the same depth only lose accuracy.
_DEGREES = {2: 3, 3: 7, 4: 15, 5: 31}
_CHECK_POINTS = 4_001


@dataclass(frozen=True, slots=True, kw_only=True)
class SignComposition:
    """Odd polynomials, applied one after the other, that bring a number to -1 or 1.

    Attributes:
        separation: Numbers at least this far from zero are told apart; nearer ones end up between -1 and 1.
        max_error: Largest distance from the sign where ``separation <= |x| <= 1``.
    """

    stages: tuple[Polynomial, ...]
    separation: float
    max_error: float

    @property
    def depth(self) -> int:
        """Products in a row."""
        return sum(depth_of(len(stage.coefficients) - 1) for stage in self.stages)

    @property
    def products(self) -> int:
        """Products of ciphertexts in all, as :func:`odd_products` counts them."""
        return sum(odd_products(len(stage.coefficients) - 1) for stage in self.stages)

    def __call__(self, values: Float64[ndarray, "..."]) -> Float64[ndarray, "..."]:
        """About the sign of each of ``values``, all within [-1, 1]."""
        for stage in self.stages:
            values = polynomial_values(stage, values)
        return values


def odd_products(degree: int) -> int:
    """Products of ciphertexts that an odd polynomial of ``2**k - 1`` takes by baby and giant steps, best split.

    With 2**j baby steps: the odd Chebyshev polynomials below 2**(j + 1), those of powers of two up to the last giant
    step, and one product for each place where two pieces are joined. Keeping the depth least may take one or two more.
    """
    log_size = (degree + 1).bit_length() - 1
    return min(
        (1 << baby) - 1 + max(log_size - 1, baby + 1) + (1 << (log_size - 1 - baby)) - 1 for baby in range(log_size)
    )


def compose_sign(*, separation: float, max_error: float, noise: float = 2.0**-20) -> SignComposition:
    """The composition of least depth, and of those the one with the fewest products, that keeps ``max_error``.

    Args:
        separation: Smallest distance from zero that must be told apart, as a share of the largest.
        max_error: Largest distance from -1 or 1 at the end, for ``separation <= |x| <= 1``.
        noise: What the ciphertexts' own error may add to the input of each stage; it stays inside the next interval.

    Raises:
        InputError: a figure outside its range, or no composition of depth 24 reaches it.
    """
    if not (0.0 < separation < 1.0 and 0.0 < max_error < 1.0 and 0.0 <= noise < 0.1):
        raise InputError("sign: expected a separation and a max_error between 0 and 1, and noise under 0.1")
    start = SignComposition(stages=(), separation=separation, max_error=1.0 - separation)
    best: dict[int, list[SignComposition]] = {0: [start]}
    for depth in range(2, MAX_STAGES_DEPTH + 1):
        longer = [
            _extended(made, degree, noise=noise)
            for spent, degree in _DEGREES.items()
            for made in best.get(depth - spent, [])
        ]
        found = [made for made in longer if made.max_error <= max_error]
        if found:
            return min(found, key=lambda made: (made.products, made.max_error))
        best[depth] = _undominated(longer)
    raise InputError(
        f"sign: telling {separation:.1e} from 0 within {max_error:.1e} takes a depth over {MAX_STAGES_DEPTH}; "
        "allow a larger separation or error"
    )


def _extended(made: SignComposition, degree: int, *, noise: float) -> SignComposition:
    """One stage more, fitted to what the stages before leave."""
    low, high = made.separation, 1.0
    if made.stages:
        low, high = 1.0 - made.max_error - noise, 1.0 + made.max_error + noise
    if low <= 0.0:  # the noise alone may turn the sign
        return made
    stage = _stage(degree, low, high)
    return SignComposition(stages=(*made.stages, stage), separation=made.separation, max_error=stage.error)


def _undominated(compositions: list[SignComposition]) -> list[SignComposition]:
    """Those that no other of their depth beats in products and in error: a smaller error never leads to a larger."""
    kept: list[SignComposition] = []
    for made in sorted(compositions, key=lambda made: (made.products, made.max_error)):
        if not kept or made.max_error < kept[-1].max_error:
            kept.append(made)
    return kept


@cache
def _stage(degree: int, low: float, high: float) -> Polynomial:
    """The best odd polynomial for the sign where ``low <= |x| <= high``."""
    coefficients = exchange(np.ones_like, terms=range(1, degree + 1, 2), low=low / high, length=degree + 1)
    points = np.linspace(low / high, 1.0, _CHECK_POINTS)
    worst = float(np.max(np.abs(chebyshev.chebval(points, coefficients) - 1.0)))
    return Polynomial(coefficients=coefficients, basis=Basis.CHEBYSHEV, low=-high, high=high, error=worst)
