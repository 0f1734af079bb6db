import math
from dataclasses import replace

import numpy as np
import pytest

from federated_cases import PRIVACY, SESSION, make_nodes, regression_sites, task_over
from mibao.errors import InputError
from mibao.federated import Compression, FedAvg, FedSGD, LogisticRegression, Privacy
from mibao.federated.task import MODULUS_BITS, PLAIN_SCALE_BITS, plain_bound

PARTS = regression_sites(sites=5)


def test_everything_that_all_sites_must_share_is_in_the_fingerprint():
    task = task_over(PARTS, privacy=PRIVACY)
    others = [
        replace(task, model=LogisticRegression(features=4)),
        replace(task, strategy=FedSGD(lr=0.5, divisor=7.0)),
        replace(task, strategy=FedAvg(lr=0.5), privacy=None),
        replace(task, privacy=None),
        replace(task, strategy=FedAvg(lr=0.5), privacy=None, compression=Compression(keep=0.5)),
        replace(task, strategy=FedAvg(lr=0.5), privacy=None, compression=Compression(keep=0.25)),
        replace(task, privacy=replace(PRIVACY, clip=2.0)),
        replace(task, privacy=replace(PRIVACY, noise_multiplier=2.5)),
        replace(task, privacy=replace(PRIVACY, max_epsilon=3.0)),
        replace(task, privacy=replace(PRIVACY, scale_bits=19)),
    ]
    assert len({each.fingerprint() for each in [task, *others]}) == len(others) + 1
    assert replace(task, data=PARTS[::-1].__getitem__).fingerprint() == task.fingerprint()


def test_over_two_thirds_of_the_sites_must_take_part_and_never_fewer_than_three():
    for sites, least in ((3, 3), (4, 3), (5, 4), (8, 6)):
        task = task_over(regression_sites(sites=sites))
        _, roster = make_nodes(task, sites=sites)
        session = task.session(session_id=SESSION, roster=roster, round_number=4, weights=np.zeros(5))
        assert (session.threshold, session.min_clients, session.round) == (least, least, 4)


def test_record_level_privacy_with_fedavg_is_refused():
    with pytest.raises(InputError, match="needs FedSGD, whose upload is a sum over records, got FedAvg"):
        task_over(PARTS, strategy=FedAvg(lr=0.1), privacy=PRIVACY)


def test_another_aggregation_is_refused():
    with pytest.raises(InputError, match="expected the aggregation 'secagg' or 'plain', got 'clear'"):
        replace(task_over(PARTS), aggregation="clear")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip": 0.0}, "expected clip"),
        ({"noise_multiplier": 0.0}, "positive noise multiplier"),
        ({"noise_multiplier": math.nan}, "positive noise multiplier"),
        ({"delta": 0.0}, "delta between 0 and 1"),
        ({"delta": 1.0}, "delta between 0 and 1"),
        ({"max_epsilon": 0.0}, "positive budget"),
        ({"scale_bits": 40}, "expected clip"),
    ],
)
def test_a_promise_without_meaning_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        Privacy(**{"clip": 1.0, "noise_multiplier": 2.0, "delta": 1e-5, **change})


@pytest.mark.parametrize("sites", [3, 4, 255, 256, 511, 512, 1023, 1024])
def test_the_largest_uploads_of_all_sites_sum_exactly(sites):
    total = sites * int(plain_bound(sites=sites)) << PLAIN_SCALE_BITS
    assert 2 ** (MODULUS_BITS - 4) < total < 2 ** (MODULUS_BITS - 1)
