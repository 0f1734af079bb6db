from dataclasses import replace

import numpy as np
import pytest

from federated_cases import PRIVACY, SESSION, byte_source, regression_sites, still_sites, task_over
from mibao.errors import BudgetExhausted, InputError, ProtocolError
from mibao.events import SecureSumReleased
from mibao.federated import FedAvg, FedSGD, Instruction, Node, Records, Server
from mibao.federated.committee import Seat, committee_for
from mibao.federated.transport import signers_for
from mibao.secagg import CommitteeMember, CommitteeSession
from mibao.types import MaskingScheme

FIRST_MEMBER = 3


def test_a_committee_opens_the_same_sums_as_the_sites_among_themselves():
    task = task_over(regression_sites(sites=4), strategy=FedAvg(lr=0.3, local_epochs=2))
    runs = [
        task.simulate(clients=4, rounds=3, dropouts={1: {2}}, committee=members, randomness=byte_source(1))
        for members in (0, 4)
    ]
    np.testing.assert_array_equal(runs[0].weights, runs[1].weights)
    assert [run.sum_exact for run in runs] == [True, True]
    assert runs[1].survivors == ((0, 1, 2, 3), (0, 1, 3), (0, 1, 2, 3))
    schemes = {event.scheme for event in runs[1].events if isinstance(event, SecureSumReleased)}
    assert schemes == {MaskingScheme.RLWE}


def test_the_noise_of_every_site_is_in_the_sum_of_a_committee():
    task = task_over(still_sites(features=4000), privacy=PRIVACY, strategy=FedSGD(lr=1.0, divisor=1.0))
    result = task.simulate(clients=5, rounds=1, dropouts={0: {2}}, committee=4, randomness=byte_source(1))
    sensitivity = np.sqrt(PRIVACY.squared_sensitivity(dimension=4001)) * 2.0**-PRIVACY.scale_bits
    noise = -result.weights / (PRIVACY.noise_multiplier * sensitivity)
    assert abs(np.var(noise) / (4 / 5) - 1.0) < 4.5 * np.sqrt(2.0 / noise.size)
    assert result.sum_exact


@pytest.mark.parametrize(("members", "corrupt", "packing"), [(4, 1, 2), (5, 1, 2), (7, 2, 2), (32, 10, 8)])
def test_a_third_less_one_of_a_committee_may_be_corrupt(members, corrupt, packing):
    one_shot, keys = committee_for(members, first=FIRST_MEMBER, randomness=byte_source(1))
    assert (one_shot.committee.corrupt, one_shot.committee.packing) == (corrupt, packing)
    assert list(keys) == list(range(FIRST_MEMBER, FIRST_MEMBER + members))


@pytest.mark.parametrize("members", [3, 65])
def test_a_committee_too_small_or_large_is_refused(members):
    task = task_over(regression_sites())
    with pytest.raises(InputError, match=f"expected a committee of 4 to 64 members, got {members}"):
        task.simulate(clients=3, rounds=1, committee=members, randomness=byte_source(1))


def test_a_committee_where_no_messages_are_run_is_refused():
    task = task_over(regression_sites())
    with pytest.raises(InputError, match="a committee opens sums where every message of the masking is run"):
        task.simulate(clients=3, rounds=1, committee=4, engine="sums", randomness=byte_source(1))


def test_a_number_too_large_for_the_masks_of_a_committee_names_the_site():
    parts = regression_sites(sites=4)
    parts[1] = Records(features=parts[1].features, targets=parts[1].targets + 1e6)
    result = task_over(parts).simulate(clients=4, rounds=1, committee=4, randomness=byte_source(1))
    (refused,) = result.refused
    assert refused.why.startswith("site 1, round 0: fixed point: a number does not fit the ")
    assert result.survivors == ((0, 2, 3),)


class Parties:
    """Three sites, a server and four members, joined by hand."""

    def __init__(self, task):
        randomness = byte_source(1)
        signers = signers_for(3, randomness=randomness)
        self.one_shot, keys = committee_for(4, first=FIRST_MEMBER, randomness=randomness)
        given = {"roster": {n: s.public for n, s in signers.items()}, "session_id": SESSION, "one_shot": self.one_shot}
        self.seen = {}
        self.nodes = {
            number: Node(
                task,
                number=number,
                signer=signer,
                randomness=randomness,
                witness=self.seen.__setitem__,
                **given,
            )
            for number, signer in signers.items()
        }
        self.server = Server(task, **given)
        self.seats = {number: Seat(task, number=number, keys=keys[number], **given) for number in keys}


def agreed_by(parties, *, length):
    agreed = parties.one_shot.session(
        session_id=SESSION,
        roster={n: s.public for n, s in signers_for(3, randomness=byte_source(1)).items()},
        round_number=0,
        least=3,
        length=length,
        task_hash=bytes(32),
        noise_std=0.0,
    )
    assert isinstance(agreed, CommitteeSession)
    return agreed


def test_a_private_upload_is_bounded_before_its_noise_and_never_refused():
    parts = still_sites(features=2, sites=3)
    many = 1 << 20
    parts[0] = Records(features=np.full((many, 2), 1e3), targets=np.full(many, -1e9))
    task = task_over(parts, privacy=PRIVACY)
    parties = Parties(task)
    parties.nodes[0].join(parties.server.open_round())
    agreed = agreed_by(parties, length=3)
    limit, modulus = (1 << (agreed.input_bits - 2)) - 1, 1 << agreed.modulus_bits
    signed = [int(value) if value < modulus // 2 else int(value) - modulus for value in parties.seen[0]]
    assert max(signed) > limit - (1 << 30)
    assert all(abs(value) < limit + (1 << 30) for value in signed)


def test_noise_that_leaves_no_room_is_refused_before_anything_is_sent():
    task = task_over(regression_sites(), privacy=replace(PRIVACY, noise_multiplier=1e5))
    with pytest.raises(InputError, match=r"noise of .* grid units leaves no room in"):
        Parties(task).server.open_round()
        Parties(task).nodes[0].join(Instruction(session_id=SESSION, round=0, weights=np.zeros(5)))


def test_a_member_that_was_shown_another_model_does_not_answer():
    parties = Parties(task_over(regression_sites()))
    instruction = parties.server.open_round()
    masking = parties.server.masking_server()
    for node in parties.nodes.values():
        masking.receive(node.join(instruction).start())
    announced = masking.advance()
    other = replace(instruction, weights=instruction.weights + 1.0)
    with pytest.raises(ProtocolError, match="client 0, step confirm: task: differs from this session's"):
        parties.seats[FIRST_MEMBER].join(other).answer(announced[FIRST_MEMBER])
    assert isinstance(parties.seats[FIRST_MEMBER].join(instruction), CommitteeMember)


def test_a_member_is_not_led_into_a_cohort_of_strangers():
    parties = Parties(task_over(regression_sites()))
    instruction = replace(parties.server.open_round(), cohort=(0, 1, 99))
    with pytest.raises(InputError, match="member 3, round 0: expected a cohort of known sites"):
        parties.seats[FIRST_MEMBER].join(instruction)


def test_a_site_charges_every_round_of_a_committee_as_if_the_fewest_had_stayed():
    private = replace(PRIVACY, noise_multiplier=7.5, max_epsilon=1.4)
    parties = Parties(task_over(regression_sites(), privacy=private))
    node = parties.nodes[0]
    with pytest.raises(BudgetExhausted, match="site 0, round"):
        for number in range(100):
            node.join(Instruction(session_id=SESSION, round=number, weights=np.zeros(5)))


def test_the_round_of_a_committee_takes_the_bits_that_the_modulus_has_room_for():
    agreed = agreed_by(Parties(task_over(regression_sites())), length=5)
    assert agreed.input_bits == min(39, agreed.modulus_bits - 2)
