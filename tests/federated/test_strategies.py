import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated_cases import regression_sites
from mibao.errors import InputError, ProtocolError
from mibao.federated import FedAvg, FedSGD, LinearRegression, pool

MODEL = LinearRegression(features=4)


@given(st.integers(1, 6), st.integers(0, 100))
def test_a_fedsgd_round_is_one_gradient_step_on_the_pooled_records(sites, seed):
    parts = regression_sites(sites=sites, seed=seed, records=5)
    weights = np.random.default_rng(seed).normal(size=MODEL.size)
    strategy = FedSGD(lr=0.3, divisor=50.0)
    total = sum(strategy.upload(MODEL, weights, part) for part in parts)
    pooled = MODEL.gradients(weights, pool(parts)).sum(axis=0)
    assert strategy.update(weights, np.asarray(total)) == pytest.approx(weights - 0.3 / 50.0 * pooled, abs=1e-9)


@given(st.integers(0, 100))
def test_fedavg_weighs_each_site_by_its_records(seed):
    parts = regression_sites(seed=seed, records=5)
    strategy = FedAvg(lr=0.1, local_epochs=3)
    weights = np.zeros(MODEL.size)
    local = []
    for part in parts:
        own = weights
        for _ in range(3):
            own = own - 0.1 * MODEL.gradients(own, part).mean(axis=0)
        local.append(own)
    expected = np.average(local, axis=0, weights=[len(part) for part in parts])
    total = np.asarray(sum(strategy.upload(MODEL, weights, part) for part in parts))
    assert strategy.update(weights, total) == pytest.approx(expected, abs=1e-9)


def test_fedavg_of_one_local_epoch_is_fedsgd_with_the_true_count():
    parts = regression_sites()
    start = np.ones(MODEL.size)
    steps = [FedAvg(lr=0.1), FedSGD(lr=0.1, divisor=float(len(pool(parts))))]
    ends = [s.update(start, np.asarray(sum(s.upload(MODEL, start, p) for p in parts))) for s in steps]
    assert ends[0] == pytest.approx(ends[1], abs=1e-12)


def test_only_the_last_iterates_are_averaged():
    iterates = [np.full(2, value) for value in (100.0, 1.0, 2.0, 6.0)]
    assert FedSGD(lr=1.0, divisor=1.0, average_last=3).finish(iterates).tolist() == [3.0, 3.0]
    assert FedAvg(lr=1.0).finish(iterates).tolist() == [6.0, 6.0]


def test_counts_that_sum_to_nothing_are_refused():
    with pytest.raises(ProtocolError, match="server, step update: the sites' record counts"):
        FedAvg(lr=1.0).update(np.zeros(1), np.array([1.0, 0.0]))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: FedSGD(lr=0.0, divisor=1.0), "lr"),
        (lambda: FedSGD(lr=1.0, divisor=float("inf")), "divisor"),
        (lambda: FedSGD(lr=1.0, divisor=1.0, average_last=0), "average_last"),
        (lambda: FedAvg(lr=float("nan")), "lr"),
        (lambda: FedAvg(lr=1.0, local_epochs=0), "local_epochs"),
    ],
)
def test_a_constant_that_is_not_positive_is_refused(make, name):
    with pytest.raises(InputError, match=f"expected a positive {name}"):
        make()
