"""Small tasks, and nodes set up by hand, for the tests of this folder."""

import numpy as np

from mibao.crypto.keys import SignerSuite, generate_signer
from mibao.federated import FedSGD, LinearRegression, Node, Privacy, Records, Task, Unit
from mibao.types import RandomId

SESSION = RandomId(bytes(range(16)))


def byte_source(seed):
    return np.random.default_rng(seed).bytes


def regression_sites(*, sites=3, records=40, features=4, seed=0):
    """Sites whose records differ in number and in where they lie, with one line through all of them but for noise."""
    rng = np.random.default_rng(seed)
    slope = np.arange(1.0, features + 1.0)
    parts = []
    for site in range(sites):
        inputs = rng.normal(loc=0.2 * site, size=(records + 10 * site, features))
        parts.append(Records(features=inputs, targets=inputs @ slope - 0.5 + rng.normal(0.0, 0.1, size=len(inputs))))
    return parts


def task_over(parts, *, strategy=None, privacy=None):
    return Task(
        model=LinearRegression(features=parts[0].features.shape[1]),
        data=parts.__getitem__,
        strategy=strategy or FedSGD(lr=0.5, divisor=float(sum(map(len, parts)))),
        privacy=privacy,
    )


def still_sites(*, features, sites=5):
    """One record a site whose gradient at zero weights is zero: a round's sum is its noise and nothing else."""
    return [Records(features=np.zeros((1, features)), targets=np.zeros(1)) for _ in range(sites)]


PRIVACY = Privacy(clip=1.0, noise_multiplier=2.0, delta=1e-5, unit=Unit.RECORD)


def make_nodes(task, *, sites, seed=1, witness=None):
    randomness = byte_source(seed)
    signers = [generate_signer(SignerSuite.ED25519, randomness(32)) for _ in range(sites)]
    roster = {number: signer.public for number, signer in enumerate(signers)}
    nodes = [
        Node(
            task,
            number=number,
            roster=roster,
            session_id=SESSION,
            signer=signer,
            randomness=randomness,
            witness=witness,
        )
        for number, signer in enumerate(signers)
    ]
    return nodes, roster
