from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from federated_cases import SESSION, byte_source, make_nodes, regression_sites, task_over
from mibao.errors import InputError, ProtocolError
from mibao.federated import Compression, FedAvg, FedBuff, Krum, LinearRegression, Privacy, Scaffold, Server, pool
from mibao.federated.compression import pack, unpack
from mibao.secagg import run_round

FEATURES = 40
PARTS = regression_sites(sites=6, features=FEATURES, records=60)
SHARED, LARGEST, QUANTISED = Compression(keep=0.25), Compression(keep=0.1, places="largest"), Compression(bits=4)


def compressed_task(compression, *, aggregation="plain", strategy=None):
    task = replace(task_over(PARTS, strategy=FedAvg(lr=0.02, batch=10)), aggregation=aggregation)
    return replace(task, strategy=strategy or task.strategy, compression=compression)


def error(result):
    """How far the model is from the pooled solution, relative to where training started."""
    expected = LinearRegression(features=FEATURES).fit(pool(PARTS))
    return np.linalg.norm(result.weights - expected) / np.linalg.norm(expected)


@given(arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e6, 1e6, width=32)), st.integers(2, 16))
def test_a_value_is_off_by_less_than_one_step(values, bits):
    found = unpack(pack(values, bits=bits, draws=np.random.default_rng(0)), count=len(values), bits=bits)
    largest = float(np.abs(values).max())
    assert np.abs(found.astype(float) - values).max() <= largest * (1.0 / (2 ** (bits - 1) - 1) + 1e-6)


def test_rounding_is_right_in_the_mean():
    draws, values = np.random.default_rng(1), np.array([1.0, 0.1, -0.3, 0.0])
    found = [unpack(pack(values, bits=2, draws=draws), count=4, bits=2) for _ in range(4000)]
    assert np.mean(found, axis=0) == pytest.approx(values, abs=0.04)


def test_four_values_of_three_bits_are_these_bytes():
    message = pack(np.array([3.0, -3.0, 0.0, 1.0]), bits=3, draws=np.random.default_rng(0))
    assert message.hex() == "00004040" + "6310"  # the scale, then 6, 0, 3, 4 with their lowest bits first
    assert unpack(message, count=4, bits=3).tolist() == [3.0, -3.0, 0.0, 1.0]


@pytest.mark.parametrize("message", [b"\0" * 5, b"\0\0\xc0\x7f\0\0", b"\0\0\x80\xbf\0\0"])
def test_a_message_that_is_cut_or_has_no_scale_is_refused(message):
    with pytest.raises(InputError, match="compression: expected"):
        unpack(message, count=4, bits=3)


@pytest.mark.parametrize(
    ("compression", "share", "strategy"),
    [
        (SHARED, 0.24, FedAvg(lr=0.02, batch=10)),
        (SHARED, 0.24, FedBuff(lr=0.02, batch=10)),
        (LARGEST, 0.14, FedAvg(lr=0.02, batch=10)),
        (QUANTISED, 0.15, FedAvg(lr=0.02, batch=10)),
        (replace(LARGEST, bits=8), 0.09, FedAvg(lr=0.02, batch=10)),
    ],
)
def test_training_arrives_with_a_fraction_of_the_bytes(compression, share, strategy):
    task = compressed_task(compression, strategy=strategy)
    result = task.simulate(clients=6, rounds=150, randomness=byte_source(1))
    assert error(result) < 0.02
    assert result.upload_bytes <= share * result.plain_bytes


def test_coordinates_shared_by_all_go_through_a_secure_sum_and_its_messages_shrink():
    task = compressed_task(SHARED, aggregation="secagg")

    def run(task, *, engine, rounds=3):
        return task.simulate(clients=6, rounds=rounds, engine=engine, randomness=byte_source(1))

    assert error(run(task, engine="sums", rounds=100)) < 0.02
    sent = run(task, engine="messages")
    assert sent.sum_exact
    assert np.array_equal(sent.weights, run(task, engine="sums").weights)
    whole = run(replace(task, compression=None), engine="messages")
    saved = 3 * 6 * 8 * (FEATURES + 1 - SHARED.kept(FEATURES + 1))
    assert whole.upload_bytes - sent.upload_bytes == pytest.approx(saved, rel=0.05)


def test_what_a_client_leaves_out_is_sent_later():
    """Without memory the smallest coordinate would never move."""
    task = compressed_task(Compression(keep=1 / 41, places="largest"), strategy=FedAvg(lr=0.05))
    result = task.simulate(clients=6, rounds=600, randomness=byte_source(1))
    assert error(result) < 0.1


def test_a_robust_rule_sees_compressed_updates():
    task = compressed_task(SHARED, strategy=FedAvg(lr=0.02, batch=10, rule=Krum(byzantine=1)))
    assert error(task.simulate(clients=6, rounds=150, randomness=byte_source(1))) < 0.1


def test_a_diverging_client_is_still_refused_by_name():
    sites = [replace(PARTS[0], features=PARTS[0].features * 1e200), *PARTS[1:]]
    for compression in (SHARED, LARGEST, QUANTISED):
        task = replace(compressed_task(compression), data=sites.__getitem__)
        result = task.simulate(clients=6, rounds=1, randomness=byte_source(1))
        assert [each.site for each in result.refused] == [0]


def test_sites_that_were_told_other_coordinates_never_sum():

    task = compressed_task(SHARED, aggregation="secagg")
    nodes, roster = make_nodes(task, sites=6)
    server = Server(task, roster=roster, session_id=SESSION)
    instruction = server.open_round()
    clients = {n: node.join(replace(instruction, seed=int(n == 1))) for n, node in enumerate(nodes)}
    with pytest.raises(ProtocolError, match="client 1, step advertise"):
        run_round(server.masking_server(), clients)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": 0.0}, "keep a share of 0 to 1, got 0"),
        ({"keep": float("nan")}, "keep a share"),
        ({"keep": 0.5, "places": "some"}, "expected the places 'shared' or 'largest', got 'some'"),
        ({"bits": 1}, "expected 2 to 16 bits, or 32, got 1"),
        ({}, "expected to keep less than all, or fewer bits"),
    ],
)
def test_a_compression_without_meaning_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        Compression(**change)


@pytest.mark.parametrize("compression", [LARGEST, QUANTISED, replace(SHARED, bits=8)])
def test_what_does_not_sum_is_refused_with_a_secure_sum(compression):
    with pytest.raises(InputError, match="with 'secagg' use the places 'shared' and 32 bits"):
        compressed_task(compression, aggregation="secagg")


def test_compression_with_privacy_or_without_updates_is_refused():
    with pytest.raises(InputError, match="compression has no account of privacy"):
        replace(compressed_task(SHARED), privacy=Privacy(clip=1.0, noise_multiplier=1.0, delta=1e-5))
    for strategy in (Scaffold(lr=0.1, clients=6), None):
        with pytest.raises(InputError, match="compression is of updates, as FedAvg"):
            replace(task_over(PARTS, strategy=strategy), compression=SHARED)
