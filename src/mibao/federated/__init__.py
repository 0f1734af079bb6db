"""Training together: one task definition, with clipping, noise and masking inside the nodes."""

from mibao.federated import partition
from mibao.federated.compression import Compression
from mibao.federated.models import LinearRegression, LogisticRegression, Model
from mibao.federated.node import Instruction, Node
from mibao.federated.privacy import AdaptiveClipping, NoiseSource, Privacy, Unit
from mibao.federated.records import Records, pool
from mibao.federated.robust import GeometricMedian, Krum, Median, TrimmedMean
from mibao.federated.server import Server
from mibao.federated.simulation import Result, RoundReport, simulate
from mibao.federated.strategies import (
    FedAdam,
    FedAvg,
    FedAvgM,
    FedBuff,
    FedProx,
    FedSGD,
    FedYogi,
    Scaffold,
    Strategy,
)
from mibao.federated.task import Task

__all__ = [
    "AdaptiveClipping",
    "Compression",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedBuff",
    "FedProx",
    "FedSGD",
    "FedYogi",
    "GeometricMedian",
    "Instruction",
    "Krum",
    "LinearRegression",
    "LogisticRegression",
    "Median",
    "Model",
    "Node",
    "NoiseSource",
    "Privacy",
    "Records",
    "Result",
    "RoundReport",
    "Scaffold",
    "Server",
    "Strategy",
    "Task",
    "TrimmedMean",
    "Unit",
    "partition",
    "pool",
    "simulate",
]
