import numpy as np
import pytest

from federated_cases import PRIVACY, SESSION, make_nodes, regression_sites, task_over
from mibao.errors import ProtocolError
from mibao.events import NoiseAdded, PrivacySpent, RoundTrained, SecureSumReleased
from mibao.federated import Server
from mibao.secagg import Phase, run_round


def play(server, nodes, dropped=()):
    instruction = server.open_round()
    clients = {n: node.join(instruction) for n, node in enumerate(nodes)}
    return run_round(server.masking_server(), clients, dropped=dict.fromkeys(dropped, Phase.MASK))


def test_a_round_leaves_its_events_in_order_and_no_loss():
    task = task_over(regression_sites(), privacy=PRIVACY)
    nodes, roster = make_nodes(task, sites=3)
    server = Server(task, roster=roster, session_id=SESSION)
    assert server.epsilon == 0.0
    events = server.close_round(play(server, nodes))
    assert [type(event) for event in events] == [SecureSumReleased, NoiseAdded, PrivacySpent, RoundTrained]
    assert events[2].epsilon == server.epsilon > 0.0
    assert not any("loss" in field or "accuracy" in field for event in events for field in event.__slots__)


def test_without_privacy_nothing_is_charged_and_nothing_is_claimed():
    task = task_over(regression_sites())
    nodes, roster = make_nodes(task, sites=3)
    server = Server(task, roster=roster, session_id=SESSION)
    events = server.close_round(play(server, nodes))
    assert [type(event) for event in events] == [SecureSumReleased, RoundTrained]
    assert server.epsilon is None


def test_a_sum_counts_once():
    task = task_over(regression_sites())
    nodes, roster = make_nodes(task, sites=3)
    server = Server(task, roster=roster, session_id=SESSION)
    released = play(server, nodes)
    server.close_round(released)
    with pytest.raises(ProtocolError, match="server, step update: expected the sum of round 1, got another"):
        server.close_round(released)


def test_what_is_sent_cannot_alter_what_the_server_holds():
    task = task_over(regression_sites())
    _, roster = make_nodes(task, sites=3)
    server = Server(task, roster=roster, session_id=SESSION)
    server.open_round().weights[:] = 9.0
    assert np.array_equal(server.open_round().weights, task.model.initial())
    assert np.array_equal(server.weights, task.model.initial())


@pytest.mark.parametrize("privacy", [None, PRIVACY])
def test_training_goes_on_after_a_failed_round_which_is_charged_with_the_fewest_sites(privacy):
    task = task_over(regression_sites(sites=5), privacy=privacy)
    nodes, roster = make_nodes(task, sites=5)
    server = Server(task, roster=roster, session_id=SESSION)
    with pytest.raises(ProtocolError):
        play(server, nodes, dropped=(0, 1))
    with pytest.raises(ProtocolError, match="round 0: stale"):
        nodes[0].join(server.open_round())
    charged = server.abandon_round()
    assert [type(event) for event in charged] == ([NoiseAdded, PrivacySpent] if privacy else [])
    assert np.array_equal(server.weights, task.model.initial())
    released = play(server, nodes)
    assert released.event.round == 1
    server.close_round(released)
    if privacy:
        assert (charged[0].round, charged[0].contributors) == (0, 4)
        assert server.epsilon > charged[1].epsilon > 0.0
