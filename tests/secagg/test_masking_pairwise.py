from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.crypto import shamir
from mibao.crypto.keys import SignerSuite
from mibao.errors import InputError, ProtocolError
from mibao.secagg import PairwiseClient, Phase, client_randomness_bytes, simulate_sum
from mibao.secagg import masking_pairwise as steps
from mibao.types import MaskingScheme
from secagg.rounds import ORDER, Round, body_of

PATTERNS = settings(max_examples=counts(short=40, long=1000), deadline=None, derandomize=True)


def left_after(dropped: dict[int, Phase], numbers: tuple[int, ...], phase: Phase) -> int:
    return sum(1 for n in numbers if n not in dropped or ORDER.index(dropped[n]) > ORDER.index(phase))


@st.composite
def rounds_with_dropouts(draw: st.DrawFn, *, enough: bool) -> tuple[Round, dict[int, Phase]]:
    """A random round, and who vanishes when: within what it tolerates, or not."""
    numbers = tuple(sorted(draw(st.sets(st.integers(0, 50) | st.integers(0, 2**32 - 1), min_size=2, max_size=8))))
    threshold = draw(st.integers(len(numbers) // 2 + 1, len(numbers)))
    made = Round(
        numbers,
        threshold=threshold,
        min_clients=draw(st.integers(2, len(numbers))),
        length=draw(st.integers(1, 40)),
        modulus_bits=draw(st.sampled_from([32, 64])),
        round_number=draw(st.integers(0, 2**32 - 1)),
        seed=draw(st.integers(0, 2**31)),
    )
    early, late = len(numbers) - made.session.least_alive, len(numbers) - threshold
    order = draw(st.permutations(numbers))
    if enough:
        gone_early = draw(st.integers(0, early))
        gone_late = draw(st.integers(0, late - gone_early)) if gone_early <= late else 0
    else:
        gone_early = draw(st.integers(early + 1, len(numbers)))
        gone_late = 0
    dropped = {n: draw(st.sampled_from(ORDER[:3])) for n in order[:gone_early]}
    dropped |= {n: draw(st.sampled_from(ORDER[3:])) for n in order[gone_early : gone_early + gone_late]}
    return made, dropped


@PATTERNS
@given(rounds_with_dropouts(enough=True))
def test_the_sum_is_bit_exact_whoever_drops_out_when(case: tuple[Round, dict[int, Phase]]) -> None:
    made, dropped = case
    released = simulate_sum(
        made.session, made.vectors, signers=made.signers, randomness=made.randomness, dropped=dropped
    )
    sent = tuple(n for n in made.session.roster if dropped.get(n) not in ORDER[:3])
    assert released.survivors == sent
    assert np.array_equal(released.total, made.sum_of(sent))


@PATTERNS
@given(rounds_with_dropouts(enough=False))
def test_with_too_few_clients_no_sum_comes_out_and_nobody_reveals(case: tuple[Round, dict[int, Phase]]) -> None:
    made, dropped = case
    with pytest.raises(ProtocolError, match=r"step (advertise|share|mask): no message; \d+ of \d+ clients left"):
        made.run_to(Phase.REVEAL, dropped=dropped)
    assert Phase.REVEAL not in made.sent
    assert made.server.phase is Phase.CLOSED
    with pytest.raises(ProtocolError, match="no sum to release"):
        made.server.release()


@pytest.mark.parametrize("phase", [Phase.CONFIRM, Phase.REVEAL])
def test_too_few_confirmations_or_revelations_close_the_session(phase: Phase) -> None:
    made = Round(5, threshold=4)
    with pytest.raises(ProtocolError, match=f"^clients 1, 3, step {phase.value}: no message; 3 of 5 clients left, 4"):
        simulate_sum(
            made.session,
            made.vectors,
            signers=made.signers,
            randomness=made.randomness,
            dropped={1: phase, 3: phase},
        )


def test_a_round_over_hybrid_signatures_gives_the_same_sum() -> None:
    made = Round(3, suite=SignerSuite.ED25519_MLDSA65)
    released = simulate_sum(made.session, made.vectors, signers=made.signers, randomness=made.randomness)
    assert np.array_equal(released.total, made.sum_of((0, 1, 2)))


def test_the_event_says_what_was_released_and_nothing_of_the_vectors() -> None:
    made = Round(5, threshold=4, length=40, modulus_bits=64)
    released = simulate_sum(
        made.session, made.vectors, signers=made.signers, randomness=made.randomness, dropped={2: Phase.MASK}
    )
    event = released.event
    assert (event.session, event.round, event.scheme) == (made.session.session_id, 7, MaskingScheme.PAIRWISE)
    assert (event.invited, event.survivors, event.threshold) == (5, 4, 4)
    assert (event.length, event.modulus_bits) == (40, 64)
    assert event.upload_bytes == released.upload_bytes


def test_upload_bytes_count_every_accepted_message_of_a_client() -> None:
    made = Round(5)
    incoming = made.run_to(Phase.REVEAL)
    made.play(incoming, Phase.REVEAL)
    spent = sum(len(message) for phase in made.sent.values() for message in phase.values())
    assert made.server.release().upload_bytes == spent


def upload_of_zeros(seed: int, *, length: int = 256, modulus_bits: int = 64) -> bytes:
    made = Round(3, length=length, modulus_bits=modulus_bits, seed=seed)
    made.vectors = {number: np.zeros(length, dtype=np.uint64) for number in made.vectors}
    made.clients = {number: made.client(number) for number in made.vectors}
    made.run_to(Phase.CONFIRM)
    vector = body_of(made.sent[Phase.MASK][1])["vector"]
    assert isinstance(vector, bytes)
    return vector


def chi_square(data: bytes) -> float:
    found = np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256)
    expected = len(data) / 256
    return float(np.sum((found - expected) ** 2) / expected)


@pytest.mark.parametrize("modulus_bits", [32, 64])
def test_an_upload_of_nothing_but_zeros_looks_like_uniform_bytes(modulus_bits: int) -> None:
    data = b"".join(upload_of_zeros(seed, length=2048, modulus_bits=modulus_bits) for seed in range(4))
    # 255 degrees of freedom: mean 255, standard deviation 22.6; seven deviations either way.
    assert 97 < chi_square(data) < 413


def test_equal_vectors_of_two_clients_and_of_two_rounds_give_uploads_without_a_common_element() -> None:
    made = Round(5, length=64, modulus_bits=64, vectors={number: np.arange(64, dtype=np.uint64) for number in range(5)})
    made.run_to(Phase.CONFIRM)
    uploads = [np.frombuffer(body_of(message)["vector"], "<u8") for message in made.sent[Phase.MASK].values()]
    uploads += [np.frombuffer(upload_of_zeros(seed, length=64), "<u8") for seed in (2, 3)]
    for i, one in enumerate(uploads):
        for other in uploads[:i]:
            assert not np.any(one == other)
            assert np.ptp(one - other) > 0, "two uploads differ by a constant"


def test_an_upload_that_comes_after_its_sender_was_declared_dropped_stays_hidden() -> None:
    made = Round(5, threshold=4, length=512, modulus_bits=64)
    survivors = made.run_to(Phase.CONFIRM, dropped={2: Phase.MASK})
    late = body_of(made.clients[2].answer(made.incoming[Phase.MASK][2]))["vector"]
    made.play(survivors, Phase.CONFIRM)
    revealed = made.play(made.server.advance(), Phase.REVEAL)
    shares = [
        shamir.Share(index=number + 1, value=dict(map(tuple, body_of(message)["keys"]))[2])
        for number, message in revealed.items()
    ]
    secret = shamir.combine(shares, threshold=4)
    exposed = np.frombuffer(late, "<u8").astype(np.uint64)
    keys = {
        number: steps.read_advertisement(made.format, data)[1] for number, data in made.sent[Phase.ADVERTISE].items()
    }
    context = steps.ShareContext(binding=made.format.binding, keys_hash=steps.keys_hash(keys))
    for peer in (0, 1, 3, 4):
        seed = steps.mask_seed(secret, keys[peer].mask_key, context)
        undo = steps.subtract_mask if steps.adds_pair_mask(2, peer) else steps.add_mask
        undo(exposed, seed, modulus_bits=64)
    assert not np.any(exposed == made.vectors[2])
    assert 97 < chi_square((exposed - made.vectors[2]).tobytes()) < 413, "the self mask is what remains"


def test_a_client_works_once_in_order_and_for_its_own_round_only() -> None:
    made = Round(3)
    with pytest.raises(ProtocolError, match="client 0 has nothing to answer"):
        made.clients[0].answer(b"")
    with pytest.raises(ProtocolError, match="client 0, step advertise: started twice"):
        made.clients[0].start()
    again = Round(3)
    again.clients[1].start()
    with pytest.raises(ProtocolError, match="client 1, step advertise: started twice"):
        again.clients[1].start()
    assert again.clients[1].phase is Phase.CLOSED


def test_a_client_that_refused_something_answers_nothing_more_and_has_forgotten_its_secrets() -> None:
    made = Round(3)
    incoming = made.run_to(Phase.SHARE)
    client = made.clients[0]
    with pytest.raises(ProtocolError, match=r"^server, step share"):
        client.answer(incoming[0][:-1])
    held = client._held
    assert held.share_secret == held.mask_secret == held.self_seed == held.polynomials == b""
    assert held.vector.size == 0 and not held.pairs and not held.shares
    with pytest.raises(ProtocolError, match="has nothing to answer"):
        client.answer(incoming[0])


def test_each_secret_is_forgotten_at_the_step_that_uses_it_last() -> None:
    held = {}
    for phase in ORDER:
        made = Round(3)
        if phase is Phase.ADVERTISE:
            made.clients[1].start()
        else:
            made.play(made.run_to(phase), phase)
        kept = made.clients[1]._held
        held[phase] = [name for name in kept.__slots__ if len(getattr(kept, name))]
    assert held == {
        Phase.ADVERTISE: ["share_secret", "mask_secret", "self_seed", "polynomials", "vector"],
        Phase.SHARE: ["self_seed", "vector", "pairs", "mask_seeds", "shares"],
        Phase.MASK: ["shares"],
        Phase.CONFIRM: ["shares"],
        Phase.REVEAL: [],
    }


def test_a_client_cannot_be_pickled_copied_or_printed_open() -> None:
    client = Round(3).clients[0]
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            attempt(client)
    assert repr(client) == "<PairwiseClient 0, round 7, advertise>"
    assert client._held.self_seed.hex() not in repr(client._held)


def test_the_callers_vector_is_neither_changed_nor_followed() -> None:
    given_vector = np.arange(8, dtype=np.uint64)
    made = Round(3, vectors={number: given_vector.copy() for number in range(3)})
    mine = made.vectors[0]
    released = simulate_sum(made.session, made.vectors, signers=made.signers, randomness=made.randomness)
    assert np.array_equal(mine, given_vector)
    assert np.array_equal(released.total, 3 * given_vector)


def make_client(made: Round, **changes: object) -> PairwiseClient:
    fields: dict[str, object] = {
        "number": 1,
        "signer": made.signers[1],
        "vector": made.vectors[1],
        "randomness": bytes(client_randomness_bytes(made.session)),
    }
    return PairwiseClient(made.session, **{**fields, **changes})  # type: ignore[arg-type]


def test_wrong_input_to_a_client_is_refused() -> None:
    made = Round(3, length=8, modulus_bits=32)
    for changes, says in (
        ({"signer": made.signers[2]}, "the signing key that the roster pins"),
        ({"number": 9}, "the signing key that the roster pins"),
        ({"vector": np.zeros(7, dtype=np.uint64)}, "expected 8 elements"),
        ({"vector": np.full(8, 1 << 32, dtype=np.uint64)}, r"elements below 2\*\*32"),
        ({"randomness": bytes(10)}, "random bytes, got 10"),
    ):
        with pytest.raises(InputError, match=says):
            make_client(made, **changes)
