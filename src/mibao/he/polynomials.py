"""Polynomials on ciphertexts."""

from __future__ import annotations
from mibao.he.lowering import Builder, Register, Infeasible
from mibao.he.network import Polynomial


def evaluate_polynomial(builder: Builder, source: Register, layer: Polynomial) -> Register:
    raise Infeasible("later")
