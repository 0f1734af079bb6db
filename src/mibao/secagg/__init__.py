"""Sums without seeing the addends: masking schemes, their session logic, and a simulator of whole rounds."""

from mibao.secagg.masking import (
    MaskingClient,
    MaskingServer,
    Phase,
    SecureSum,
    Session,
    default_threshold,
)
from mibao.secagg.masking_pairwise import client_randomness_bytes
from mibao.secagg.masking_pairwise_client import PairwiseClient
from mibao.secagg.masking_pairwise_server import PairwiseServer
from mibao.secagg.simulation import run_round, simulate_sum

__all__ = [
    "MaskingClient",
    "MaskingServer",
    "PairwiseClient",
    "PairwiseServer",
    "Phase",
    "SecureSum",
    "Session",
    "client_randomness_bytes",
    "default_threshold",
    "run_round",
    "simulate_sum",
]
