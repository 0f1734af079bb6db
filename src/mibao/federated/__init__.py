"""Training together: one task definition, with clipping, noise and masking inside the nodes."""

from mibao.federated.models import LinearRegression, LogisticRegression, Model
from mibao.federated.node import Instruction, Node
from mibao.federated.records import Records, pool
from mibao.federated.server import Server
from mibao.federated.simulation import Result, simulate
from mibao.federated.strategies import FedAvg, FedSGD, Strategy
from mibao.federated.task import Privacy, Task

__all__ = [
    "FedAvg",
    "FedSGD",
    "Instruction",
    "LinearRegression",
    "LogisticRegression",
    "Model",
    "Node",
    "Privacy",
    "Records",
    "Result",
    "Server",
    "Strategy",
    "Task",
    "pool",
    "simulate",
]
