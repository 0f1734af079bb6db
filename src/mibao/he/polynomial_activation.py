"""A polynomial as a PyTorch module: what training sees of what ciphertexts compute.

Importing this module imports PyTorch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from mibao.errors import InputError
from mibao.he.network import Basis, Polynomial


class PolynomialActivation(nn.Module):  # type: ignore[misc]
    """One polynomial on every number, Chebyshev coefficients on ``[low, high]``, which training may change.

    Attributes:
        coefficients: Shape (degree + 1,); a parameter, or a buffer where they are to stay.
        excess: Set by each call: the mean square by which its inputs lay outside the interval, in half widths.
    """

    def __init__(self, polynomial: Polynomial, *, trainable: bool) -> None:
        super().__init__()
        if polynomial.basis is not Basis.CHEBYSHEV:
            raise InputError("activation: expected a polynomial in the Chebyshev basis of its interval")
        coefficients = torch.tensor(polynomial.coefficients, dtype=torch.get_default_dtype())
        if trainable:
            self.coefficients = nn.Parameter(coefficients)
        else:
            self.register_buffer("coefficients", coefficients)
        self.register_buffer("interval", torch.tensor([polynomial.low, polynomial.high], dtype=torch.float64))
        self.error = polynomial.error
        self.trainable = trainable
        self.excess: Any = torch.zeros(())

    def forward(self, values: Any) -> Any:
        """The polynomial at each of ``values``, by Clenshaw's recurrence."""
        low, high = self.interval.to(values.dtype)
        unit = (2.0 * values - (low + high)) / (high - low)
        self.excess = torch.relu(unit.abs() - 1.0).square().mean()
        later, latest = torch.zeros_like(unit), torch.zeros_like(unit)
        for coefficient in self.coefficients[1:].flip(0):
            later, latest = latest, 2.0 * unit * latest - later + coefficient
        return unit * latest - later + self.coefficients[0]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: not the graph of the last call, which cannot be copied."""
        return {**self.__dict__, "excess": torch.zeros(())}

    def layer(self) -> Polynomial:
        """The same as a layer of a network; trained coefficients are the model's own, so nothing is approximated."""
        low, high = (float(bound) for bound in self.interval)
        return Polynomial(
            coefficients=np.array(self.coefficients.detach().cpu().double().numpy()),
            basis=Basis.CHEBYSHEV,
            low=low,
            high=high,
            error=0.0 if self.trainable else self.error,
        )
