from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from federated_cases import PRIVACY, SESSION, make_nodes, regression_sites, still_sites, task_over
from mibao.codec import fixed_point
from mibao.dp import clip_to_grid, epsilon_spent
from mibao.errors import BudgetExhausted, InputError, ProtocolError
from mibao.federated import FedSGD, Instruction, LinearRegression, LogisticRegression, Records, Server
from mibao.federated.node import MAX_WEIGHT
from mibao.secagg import PairwiseServer, Phase, run_round
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
    seen = {}
    nodes, roster = make_nodes(task, sites=sites, seed=seed, witness=seen.__setitem__)
    server = Server(task, roster=roster, session_id=SESSION)
    instruction = server.open_round()
    sent = [[] for _ in nodes]
    clients = {n: Tap(node.join(instruction), sent[n]) for n, node in enumerate(nodes)}
    return [seen[n] for n in range(sites)], sent, run_round(server.masking_server(), clients)


def contribution_of(task, *, site, weights, rounds=1):
    """What one site puts into each of its first rounds, unmasked."""
    seen = []
    nodes, _ = make_nodes(task, sites=3, witness=lambda _, contribution: seen.append(contribution))
    for number in range(rounds):
        nodes[site].join(Instruction(session_id=SESSION, round=number, weights=weights))
    return seen


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
    weights = np.ones(task.model.size)
    (contribution,) = contribution_of(task, site=1, weights=weights)
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
    noise = []
    for contribution in contribution_of(task, site=0, weights=weights, rounds=200):
        noise.append(fixed_point.from_ring(contribution, modulus_bits=64) - clipped)
    variance = float(PRIVACY.share_variance(dimension=task.model.size, sites=3))
    assert np.var(noise) / variance == pytest.approx(1.0, abs=4.5 * np.sqrt(2 / 1000))


def instruct(nodes, **change):
    instruction = Instruction(session_id=SESSION, round=3, weights=np.zeros(5))
    return nodes[1].join(replace(instruction, **change))


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
        ({"round": -1}, "expected a whole number"),
        ({"clip": 9.0}, "expected a clip exactly where the task lets the clip adapt"),
        ({"seed": -1}, "expected a seed of 0 or more"),
        ({"cohort": (0, 2)}, "expected a cohort of known sites with site 1 among them"),
        ({"cohort": (0, 1, 9)}, "expected a cohort of known sites with site 1 among them"),
        ({"shared": {"variate": np.zeros(4)}}, "expected 5 finite numbers in 'variate'"),
        ({"shared": {"variate": np.full(5, np.nan)}}, "expected 5 finite numbers in 'variate'"),
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
        nodes[2].join(Instruction(session_id=SESSION, round=0, weights=np.ones(3)))


def test_a_site_with_another_task_cannot_take_part():
    parts = regression_sites()
    task = task_over(parts, privacy=PRIVACY)
    weaker = replace(task, privacy=replace(PRIVACY, noise_multiplier=0.1))
    nodes, roster = make_nodes(task, sites=3)
    odd, _ = make_nodes(weaker, sites=3)
    server = Server(task, roster=roster, session_id=SESSION)
    instruction = server.open_round()
    clients = {n: node.join(instruction) for n, node in enumerate([*nodes[:2], odd[2]])}
    with pytest.raises(ProtocolError):
        run_round(server.masking_server(), clients)


def test_a_node_shows_its_number_and_nothing_else():
    nodes, _ = make_nodes(task_over(regression_sites()), sites=3)
    assert repr(nodes[2]) == "<Node 2>"


@pytest.mark.parametrize("odd", [float("nan"), 0.5, 1.0, True, -1, 2**32, "1", np.int64(1)])
def test_a_round_that_is_no_whole_number_in_range_changes_nothing(odd):
    nodes, _ = make_nodes(task_over(regression_sites()), sites=3)
    instruct(nodes, round=5)
    instruction = Instruction(session_id=SESSION, round=6, weights=np.zeros(5))
    object.__setattr__(instruction, "round", odd)  # past the checks of types that only tests have
    with pytest.raises(ProtocolError, match=r"server, step instruct, round .*expected a whole number"):
        nodes[1].join(instruction)
    with pytest.raises(ProtocolError, match="stale"):
        instruct(nodes, round=5)
    instruct(nodes, round=6)


@pytest.mark.parametrize("privacy", [None, PRIVACY])
def test_sites_that_were_sent_different_weights_never_sum(privacy):
    # Else, with weights that silence the others, the sum would be one site's own.
    task = task_over(regression_sites(), privacy=privacy)
    nodes, roster = make_nodes(task, sites=3)
    server = Server(task, roster=roster, session_id=SESSION)
    instruction = server.open_round()
    other = replace(instruction, weights=instruction.weights + np.array([0.0, 0.0, 0.0, 0.0, 5e-324]))
    clients = {n: node.join(other if n == 1 else instruction) for n, node in enumerate(nodes)}
    with pytest.raises(ProtocolError, match="client 1, step advertise"):
        run_round(server.masking_server(), clients)


@pytest.mark.parametrize("privacy", [None, PRIVACY])
def test_the_two_sums_of_one_round_whose_difference_is_one_site_cannot_be_had(privacy):
    task = task_over(regression_sites(sites=5), privacy=privacy)
    nodes, roster = make_nodes(task, sites=5)
    server = Server(task, roster=roster, session_id=SESSION)
    instruction = server.open_round()
    run_round(server.masking_server(), {n: node.join(instruction) for n, node in enumerate(nodes)})
    for node in nodes:
        with pytest.raises(ProtocolError, match="round 0: stale"):
            node.join(instruction)
    # Nor is there another door: beside this one there is that of evaluation, open once a round where the task has it.
    assert [name for name in dir(nodes[0]) if not name.startswith("_")] == ["join", "measure"]
    with pytest.raises(InputError, match="expected 'held_out'"):
        nodes[0].measure(instruction)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
HUGE = st.sampled_from([1e308, -1e308, MAX_WEIGHT, -MAX_WEIGHT, 1.0, 0.0])


@given(weights=arrays(np.float64, 3, elements=HUGE), rows=arrays(np.float64, (3, 2), elements=FINITE), data=st.data())
def test_no_record_decides_whether_a_private_site_answers(weights, rows, data):
    classes = data.draw(st.booleans())
    targets = data.draw(arrays(np.float64, 3, elements=st.sampled_from([0.0, 1.0]) if classes else FINITE))
    parts = [Records(features=rows, targets=targets)] * 3
    model = LogisticRegression(features=2) if classes else LinearRegression(features=2)
    task = replace(task_over(parts, privacy=PRIVACY), model=model)
    nodes, _ = make_nodes(task, sites=3)
    instruction = Instruction(session_id=SESSION, round=0, weights=weights)
    if np.all(np.abs(weights) <= MAX_WEIGHT):
        assert nodes[0].join(instruction).phase is Phase.ADVERTISE
    else:
        with pytest.raises(ProtocolError, match="expected finite weights of at most"):
            nodes[0].join(instruction)


def test_a_record_whose_gradient_overflows_counts_as_zero_and_moves_no_other(monkeypatch):
    monkeypatch.setattr("mibao.dp.discrete_gaussian", lambda count, **_: np.zeros(count, dtype=np.int64))
    parts = regression_sites()
    overflowing = Records(
        features=np.vstack([parts[0].features, [[1.7e308, -1.7e308, 1.7e308, 0.0]]]),
        targets=np.append(parts[0].targets, 0.0),
    )
    weights = np.array([MAX_WEIGHT, MAX_WEIGHT, 1.0, 1.0, 1.0])
    sums = [
        contribution_of(task_over([part, *parts[1:]], privacy=PRIVACY), site=0, weights=weights)[0]
        for part in (parts[0], overflowing)
    ]
    assert np.array_equal(*sums)


def test_targets_that_are_no_classes_are_refused_when_loaded():
    task = replace(task_over(regression_sites(), privacy=PRIVACY), model=LogisticRegression(features=4))
    with pytest.raises(InputError, match="site 0: logistic regression: expected targets 0 and 1"):
        make_nodes(task, sites=3)


def answer_until_refused(*, reveal):
    """How many rounds the sites answer of a server that keeps no account; with ``reveal``, of whole ones."""
    task = task_over(regression_sites(sites=5), privacy=replace(PRIVACY, max_epsilon=5.0))
    nodes, roster = make_nodes(task, sites=5)
    weights = task.model.initial()
    for number in range(100):
        instruction = Instruction(session_id=SESSION, round=number, weights=weights)
        try:
            clients = {n: node.join(instruction) for n, node in enumerate(nodes)}
        except BudgetExhausted as error:
            assert f"site 0, round {number}: privacy budget" in str(error)
            return number
        if reveal:
            session = task.session(session_id=SESSION, roster=roster, round_number=number, weights=weights)
            run_round(PairwiseServer(session), clients)
    return 100


def test_a_site_stops_at_its_own_budget_whatever_the_server_says():
    privacy = replace(PRIVACY, max_epsilon=5.0)

    def spent(*contributors):
        events = [
            privacy.noise_added(session_id=SESSION, round_number=0, contributors=count, sites=5, dimension=5)
            for count in contributors
        ]
        return epsilon_spent(events, delta=privacy.delta)

    unseen, whole = answer_until_refused(reveal=False), answer_until_refused(reveal=True)
    assert spent(*[4] * unseen) <= 5.0 < spent(*[4] * (unseen + 1))
    # Rounds that were signed for are charged with the noise that they had.
    assert spent(*[5] * (whole - 1), 4) <= 5.0 < spent(*[5] * whole, 4)
    assert whole > unseen > 1
