import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated_cases import byte_source, regression_sites
from mibao.errors import InputError, ProtocolError
from mibao.federated import (
    FedAvg,
    GeometricMedian,
    Krum,
    LinearRegression,
    Median,
    NoiseSource,
    Privacy,
    Records,
    Task,
    TrimmedMean,
    pool,
)

RULES = (Krum(byzantine=2), Krum(byzantine=2, keep=4), TrimmedMean(trim=2), Median(), GeometricMedian())
SITES = 9


def sites(*, poisoned):
    """Sites on one line, the last ``poisoned`` of which upload what leads far away from it."""
    parts = regression_sites(sites=SITES, records=20)
    for place in range(SITES - poisoned, SITES):
        parts[place] = Records(features=parts[place].features, targets=-40.0 * parts[place].targets - 300.0)
    return parts


def error_of(rule, *, poisoned):
    parts, honest = sites(poisoned=poisoned), regression_sites(sites=SITES, records=20)
    task = Task(
        model=LinearRegression(features=4), data=parts.__getitem__, strategy=FedAvg(lr=0.3, local_epochs=3, rule=rule),
        aggregation="plain",
    )  # fmt: skip
    result = task.simulate(clients=SITES, rounds=15, randomness=byte_source(1))
    pooled = LinearRegression(features=4).fit(pool(honest[: SITES - poisoned]))
    return float(np.abs(result.weights - pooled).max())


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_holds_against_two_poisoned_clients_of_nine_and_the_mean_does_not(rule):
    assert error_of(rule, poisoned=0) < 0.2
    assert error_of(rule, poisoned=2) < 0.3
    assert error_of(None, poisoned=2) > 10.0


def test_a_rule_holds_as_long_as_it_says_and_no_longer():
    assert error_of(Median(), poisoned=4) < 0.6
    assert error_of(TrimmedMean(trim=2), poisoned=4) > 5.0


@given(st.integers(0, 100))
def test_uploads_that_are_all_the_same_are_the_result_and_their_order_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    same = np.tile(rng.normal(size=6), (SITES, 1))
    rows = rng.normal(size=(SITES, 6))
    for rule in RULES:
        assert rule.combine(same) == pytest.approx(same[0], abs=1e-9)
        assert rule.combine(rows[rng.permutation(SITES)]) == pytest.approx(rule.combine(rows), abs=1e-6)


def test_known_answers():
    rows = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0], [100.0, -100.0], [1.0, 0.0]])
    assert Median().combine(rows).tolist() == [1.0, 0.0]
    assert TrimmedMean(trim=1).combine(rows) == pytest.approx([4 / 3, 0.0])
    assert Krum(byzantine=1).combine(rows).tolist() == [1.0, 0.0]
    triangle = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    assert GeometricMedian().combine(triangle) == pytest.approx([0.5, np.sqrt(3) / 6], abs=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_refused_where_uploads_are_hidden_or_privacy_counts_on_the_mean(rule):
    parts = regression_sites()
    parts_task = {"model": LinearRegression(features=4), "data": parts.__getitem__}
    with pytest.raises(InputError, match="looks at uploads one by one, which a secure sum hides"):
        Task(**parts_task, strategy=FedAvg(lr=0.1, rule=rule))
    privacy = Privacy(clip=1.0, noise_multiplier=1.0, delta=1e-5, noise=NoiseSource.CENTRAL)
    with pytest.raises(InputError, match="has no account of privacy"):
        Task(**parts_task, strategy=FedAvg(lr=0.1, rule=rule), aggregation="plain", privacy=privacy)


def test_too_few_clients_for_a_rule_end_the_round_by_name():
    with pytest.raises(ProtocolError, match="Krum needs 7 clients or more, got 3"):
        Krum(byzantine=2).combine(np.zeros((3, 2)))


@pytest.mark.parametrize(
    "make", [lambda: Krum(byzantine=-1), lambda: TrimmedMean(trim=-1), lambda: GeometricMedian(smoothing=0.0)]
)
def test_settings_without_meaning_are_refused(make):
    with pytest.raises(InputError, match="expected"):
        make()
