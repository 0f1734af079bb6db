from dataclasses import replace

import numpy as np
import pytest

from federated_cases import PRIVACY, SESSION, make_nodes, regression_sites, still_sites, task_over
from mibao.codec import fixed_point
from mibao.dp import clip_to_grid
from mibao.errors import InputError, ProtocolError
from mibao.federated import FedSGD, Instruction, Records, Server
from mibao.secagg import run_round
from mibao.types import RandomId


class Tap:
    """A masking client whose every outgoing byte is written down."""

    def __init__(self, client, sent):
        self._client, self._sent = client, sent

    @property
    def phase(self):
        return self._client.phase

    def start(self):
        return self._keep(self._client.start())

    def answer(self, message):
        return self._keep(self._client.answer(message))

    def _keep(self, message):
        self._sent.append(message)
        return message


def tapped_round(task, *, sites, seed=1):
    """One round through the real messages: contributions, what each node sent, and the released sum."""
    nodes, roster = make_nodes(task, sites=sites, seed=seed)
    server = Server(task, roster=roster, session_id=SESSION)
    instruction = server.open_round()
    contributions = [node.contribution(instruction) for node in nodes]
    sent = [[] for _ in nodes]
    clients = {n: Tap(node.mask(instruction, contributions[n]), sent[n]) for n, node in enumerate(nodes)}
    return contributions, sent, run_round(server.masking_server(), clients)


def test_what_leaves_a_node_is_masked_bytes_and_no_record():
    parts = regression_sites(sites=3, features=6)
    for privacy in (None, PRIVACY):
        contributions, sent, released = tapped_round(task_over(parts, privacy=privacy), sites=3)
        assert np.array_equal(released.total, np.sum(contributions, axis=0, dtype=np.uint64))
        for part, contribution, messages in zip(parts, contributions, sent, strict=True):
            left = b"".join(messages)
            assert len(left) > contribution.nbytes
            secrets = [*part.features.ravel(), *part.targets]
            assert not any(np.float64(value).tobytes() in left for value in secrets)
            for element in contribution:
                assert element.tobytes() not in left
                assert element.byteswap().tobytes() not in left


def test_a_masked_upload_of_zeros_is_indistinguishable_from_uniform_bytes():
    features = 4000
    contributions, sent, _ = tapped_round(task_over(still_sites(features=features, sites=3)), sites=3)
    assert not contributions[0].any()
    upload = np.frombuffer(max(sent[0], key=len), dtype=np.uint8)
    expected = upload.size / 256
    chi_square = float(((np.bincount(upload, minlength=256) - expected) ** 2 / expected).sum())
    assert chi_square < 255 + 6 * np.sqrt(2 * 255)


def test_without_privacy_a_contribution_is_the_summed_gradient_on_the_grid():
    parts = regression_sites()
    task = task_over(parts)
    nodes, _ = make_nodes(task, sites=3)
    weights = np.ones(task.model.size)
    contribution = nodes[1].contribution(Instruction(session_id=SESSION, round=0, weights=weights))
    decoded = fixed_point.from_integers(
        fixed_point.from_ring(contribution, modulus_bits=64), scale_bits=task.scale_bits
    )
    expected = task.model.gradients(weights, parts[1]).sum(axis=0)
    assert np.all(np.abs(decoded - expected) <= 2.0 ** -(task.scale_bits + 1) + 1e-12)


def test_with_privacy_a_contribution_is_the_clipped_sum_and_noise_of_the_right_size():
    parts = regression_sites()
    task = task_over(parts, privacy=PRIVACY)
    weights = 50.0 * np.ones(task.model.size)
    rows = task.model.gradients(weights, parts[0])
    assert np.linalg.norm(rows, axis=1).max() > 10 * PRIVACY.clip
    clipped = clip_to_grid(rows, clip=PRIVACY.clip, scale_bits=PRIVACY.scale_bits).sum(axis=0)
    nodes, _ = make_nodes(task, sites=3)
    noise = []
    for number in range(200):
        contribution = nodes[0].contribution(Instruction(session_id=SESSION, round=number, weights=weights))
        noise.append(fixed_point.from_ring(contribution, modulus_bits=64) - clipped)
    variance = float(PRIVACY.share_variance(dimension=task.model.size, sites=3))
    assert np.var(noise) / variance == pytest.approx(1.0, abs=4.5 * np.sqrt(2 / 1000))


def instruct(nodes, **change):
    instruction = Instruction(session_id=SESSION, round=3, weights=np.zeros(5))
    return nodes[1].contribution(replace(instruction, **change))


def test_a_round_is_answered_once_and_never_an_older_one():
    nodes, _ = make_nodes(task_over(regression_sites()), sites=3)
    instruct(nodes)
    for stale in (3, 2, 0):
        with pytest.raises(ProtocolError, match=f"server, step instruct, round {stale}: stale, site 1 .* round 3"):
            instruct(nodes, round=stale)
    instruct(nodes, round=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"session_id": RandomId(bytes(16))}, "another training run than site 1"),
        ({"round": -1}, "stale"),
        ({"weights": np.zeros(4)}, r"expected 5 weights, got shape \(4,\)"),
        ({"weights": np.array([0.0, 0.0, np.nan, 0.0, 0.0])}, "expected finite weights"),
    ],
)
def test_an_instruction_that_breaks_the_protocol_is_refused_and_uses_up_no_round(change, message):
    nodes, _ = make_nodes(task_over(regression_sites()), sites=3)
    with pytest.raises(ProtocolError, match=f"server, step instruct, round .*{message}"):
        instruct(nodes, **change)
    instruct(nodes, round=0)


def test_a_site_without_fitting_records_is_refused_by_its_number():
    parts = regression_sites()
    wide = Records(features=np.zeros((3, 9)), targets=np.zeros(3))
    with pytest.raises(InputError, match="site 2: expected records of 4 features, got 9"):
        make_nodes(task_over([*parts[:2], wide]), sites=3)


@pytest.mark.parametrize(
    ("features", "targets", "message"),
    [
        (np.full((3, 4), np.nan), np.zeros(3), "expected finite values"),
        (np.zeros((0, 4)), np.zeros(0), "at least one record, got none"),
        (np.zeros((3, 4)), np.zeros(2), "one row of features for each target"),
    ],
)
def test_a_site_with_bad_records_is_refused_by_its_number(features, targets, message):
    parts = regression_sites()

    def data(site):
        return parts[site] if site != 1 else Records(features=features, targets=targets)

    with pytest.raises(InputError, match=f"site 1: records: .*{message}"):
        make_nodes(replace(task_over(parts), data=data), sites=3)


def test_a_result_too_large_for_fixed_point_is_refused_by_site_and_round():
    parts = [Records(features=np.full((1, 2), 1e12), targets=np.zeros(1)) for _ in range(3)]
    task = task_over(parts, strategy=FedSGD(lr=1.0, divisor=1.0))
    nodes, _ = make_nodes(task, sites=3)
    with pytest.raises(InputError, match="site 2, round 0: fixed point: expected values within"):
        nodes[2].contribution(Instruction(session_id=SESSION, round=0, weights=np.ones(3)))


def test_a_site_with_another_task_cannot_take_part():
    parts = regression_sites()
    task = task_over(parts, privacy=PRIVACY)
    weaker = replace(task, privacy=replace(PRIVACY, noise_multiplier=0.1))
    nodes, roster = make_nodes(task, sites=3)
    odd, _ = make_nodes(weaker, sites=3)
    server = Server(task, roster=roster, session_id=SESSION)
    instruction = server.open_round()
    clients = {n: node.mask(instruction, node.contribution(instruction)) for n, node in enumerate([*nodes[:2], odd[2]])}
    with pytest.raises(ProtocolError):
        run_round(server.masking_server(), clients)


def test_a_node_shows_its_number_and_nothing_else():
    nodes, _ = make_nodes(task_over(regression_sites()), sites=3)
    assert repr(nodes[2]) == "<Node 2>"
