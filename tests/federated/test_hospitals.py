import sys
from dataclasses import replace

import numpy as np
import pytest

from counts import counts
from federated_cases import SESSION, byte_source, make_nodes

pytest.importorskip("sklearn.datasets")

from sklearn.datasets import load_breast_cancer

from mibao.codec.fixed_point import from_integers, from_ring
from mibao.demo import hospitals
from mibao.errors import MissingExtra
from mibao.federated import Instruction

EVERYONE = hospitals.load_hospitals()


def test_the_hospitals_and_the_test_share_out_every_record_once():
    parts = [*EVERYONE.sites, EVERYONE.test]
    rows = {row.tobytes() for part in parts for row in part.features}
    assert sum(map(len, parts)) == 569 == len(rows)
    assert sum(part.targets.sum() for part in parts) == 212
    assert len(EVERYONE.test) == 171
    shares = [part.targets.mean() for part in EVERYONE.sites]
    assert max(shares) > 2 * min(shares)
    assert len(EVERYONE.sites) == len(hospitals.NAMES) == 5


def test_the_split_is_the_same_every_time():
    again = hospitals.load_hospitals()
    assert np.array_equal(again.test.features, EVERYONE.test.features)
    assert all(np.array_equal(a.features, b.features) for a, b in zip(again.sites, EVERYONE.sites, strict=True))


def test_no_record_moves_another_through_the_scaling(monkeypatch):
    data = load_breast_cancer()
    data.data[17] *= 1000.0
    monkeypatch.setattr(hospitals, "_load", lambda: data)
    moved = hospitals.load_hospitals()
    parts = zip([*moved.sites, moved.test], [*EVERYONE.sites, EVERYONE.test], strict=True)
    assert sum(int(np.any(a.features != b.features, axis=1).sum()) for a, b in parts) == 1


def test_every_scaling_constant_is_a_round_number():
    for pair in hospitals.SCALING.values():
        for constant in pair:
            assert float(f"{constant:.2g}") == constant


def test_the_protected_model_is_within_three_points_of_the_pooled_one():
    model = EVERYONE.model()
    pooled = model.accuracy(model.fit(EVERYONE.pooled()), EVERYONE.test)
    assert pooled > 0.95
    for seed in range(counts(short=1, long=20)):
        result = EVERYONE.protected_task().simulate(
            clients=5, rounds=hospitals.ROUNDS, dropouts=hospitals.DROPOUTS, randomness=byte_source(seed)
        )
        assert model.accuracy(result.weights, EVERYONE.test) >= pooled - 0.03
        assert result.sum_exact
        assert 3.5 < result.epsilon <= hospitals.PRIVACY.max_epsilon <= 8.0
        assert [len(alive) for alive in result.survivors] == [4 if n == 12 else 5 for n in range(hospitals.ROUNDS)]


def test_nearly_every_draw_of_the_noise_stays_within_three_points():
    # The sums without the masks, which are exact and only cost time.
    # Nodes that never see a round end charge it with the fewest sites, hence no budget here.
    model, task = EVERYONE.model(), EVERYONE.protected_task()
    task = replace(task, privacy=replace(hospitals.PRIVACY, max_epsilon=float("inf")))
    pooled = model.accuracy(model.fit(EVERYONE.pooled()), EVERYONE.test)
    seeds = counts(short=2, long=200)
    within = 0
    for seed in range(seeds):
        addends = {}
        nodes, _ = make_nodes(task, sites=5, seed=1000 + seed, witness=addends.__setitem__)
        weights, state = model.initial(), {}
        for number in range(hospitals.ROUNDS):
            alive = [node for site, node in enumerate(nodes) if site not in hospitals.DROPOUTS.get(number, ())]
            instruction = Instruction(session_id=SESSION, round=number, weights=weights)
            addends.clear()
            for node in alive:
                node.join(instruction)
            total = np.sum([from_ring(addend, modulus_bits=64) for addend in addends.values()], axis=0)
            total = from_integers(total, scale_bits=task.scale_bits)
            weights = task.strategy.update(weights, total, state)
        within += model.accuracy(task.strategy.finish(weights, state), EVERYONE.test) >= pooled - 0.03
    assert within >= 0.995 * seeds


def test_fedavg_without_privacy_is_within_two_points_of_the_pooled_model():
    model = EVERYONE.model()
    pooled = model.accuracy(model.fit(EVERYONE.pooled()), EVERYONE.test)
    result = EVERYONE.fedavg_task().simulate(clients=5, rounds=hospitals.FEDAVG_ROUNDS, randomness=byte_source(1))
    assert model.accuracy(result.weights, EVERYONE.test) >= pooled - 0.02
    assert result.sum_exact
    assert result.epsilon is None


def test_without_scikit_learn_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install '\.\[demo\]'"):
        hospitals.load_hospitals()
