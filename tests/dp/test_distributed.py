import math
from typing import Any

import numpy as np
import pytest

from counts import counts
from mibao.crypto import prg
from mibao.dp import NoiseShares, epsilon_spent, rho_of
from mibao.errors import InputError
from mibao.secagg import vector_codec
from mibao.secagg.masking import Trust
from mibao.secagg.rlwe_parameters import ParameterSet
from mibao.types import RandomId
from secagg.committee_rounds import CommitteeRound
from secagg.rounds import Stream

SESSION = RandomId(bytes(16))
GIVEN: dict[str, Any] = {
    "clients": 6,
    "dropouts": 2,
    "colluders": 1,
    "squared_sensitivity": 10_000,
    "noise_multiplier": 3.0,
    "dimension": 50,
}
SHARES = NoiseShares(**GIVEN)


@pytest.mark.parametrize("dropped", [(), (1, 3)])
def test_a_decoded_sum_carries_the_variance_that_was_promised(dropped: tuple[int, ...]) -> None:
    """Through the real masks: with nobody and with t clients dropped out, within 1 %."""
    length = counts(short=220_000, long=2_000_000)
    shares = NoiseShares(**{**GIVEN, "dimension": length, "clients": 4, "colluders": 0})
    made = CommitteeRound(
        4, trust=Trust.HONEST_SERVER, parameters=ParameterSet.RLWE_2048_48, length=length, input_bits=shares.noise_bits
    )
    bits = made.session.modulus_bits
    noise = {n: shares.draw(Stream(100 + n)) for n in range(4) if n not in dropped}
    made.vectors = {n: vector_codec.to_ring(drawn, modulus_bits=bits) for n, drawn in noise.items()}
    made.signers = {n: key for n, key in made.signers.items() if n in noise}
    decoded = vector_codec.from_ring(made.finish(made.collect()), modulus_bits=bits)
    assert np.array_equal(decoded, sum(noise.values()))
    promised = float(shares.variance_each) * len(noise)
    assert promised >= 9.0 * 10_000
    assert float(np.mean(decoded.astype(float) ** 2)) == pytest.approx(promised, rel=0.01)


def test_each_client_adds_its_share_and_the_fewest_survivors_keep_sigma_unknown() -> None:
    assert SHARES.variance_each == 9 * 10_000 // 3
    assert SHARES.least_survivors == 4
    assert (SHARES.least_survivors - SHARES.colluders) * SHARES.variance_each == 9 * 10_000


def test_a_round_with_the_fewest_survivors_costs_what_the_central_mechanism_costs() -> None:
    event = SHARES.charge(session=SESSION, round_number=0, survivors=4)
    assert SHARES.rho(event) == pytest.approx(1 / (2 * 3.0**2), rel=1e-9)
    everybody = SHARES.charge(session=SESSION, round_number=0, survivors=6)
    assert SHARES.rho(everybody) < SHARES.rho(event)
    assert rho_of(event) < SHARES.rho(event)


@pytest.mark.parametrize("survivors", [0, 1, 3])
def test_a_discarded_round_is_charged_like_one_with_the_fewest_survivors(survivors: int) -> None:
    discarded = SHARES.charge(session=SESSION, round_number=3, survivors=survivors)
    assert discarded == SHARES.charge(session=SESSION, round_number=3, survivors=4)
    assert epsilon_spent([discarded], delta=1e-5, colluders=1) > 0


def test_noise_fits_its_bits() -> None:
    shares = NoiseShares(**{**GIVEN, "dimension": 20_000})
    drawn = shares.draw(Stream(5))
    assert np.abs(drawn).max() < 1 << (shares.noise_bits - 1)
    assert 12 * math.sqrt(shares.variance_each) <= 1 << (shares.noise_bits - 1)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"dropouts": 5}, "expected a client left beside dropouts and colluders, got 6 clients, 5 and 1"),
        ({"colluders": -1}, "got 6 clients, 2 and -1"),
        ({"dimension": 0}, "expected a positive dimension, got 0"),
        ({"noise_multiplier": math.inf}, "expected a positive sensitivity, multiplier"),
        ({"squared_sensitivity": 0}, "expected a positive sensitivity, multiplier"),
    ],
)
def test_shares_that_cannot_be_are_refused(change: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError, match=error):
        NoiseShares(**{**GIVEN, **change})


@pytest.mark.parametrize("survivors", [-1, 7])
def test_survivors_beyond_the_clients_are_refused(survivors: int) -> None:
    with pytest.raises(InputError, match=f"expected 0 to 6 survivors, got {survivors}"):
        SHARES.charge(session=SESSION, round_number=0, survivors=survivors)


def test_the_bound_after_rotation_and_rounding_goes_into_the_shares() -> None:
    codec = vector_codec.VectorCodec(100, 1.0, value_bits=12, seed=bytes(32), rotated=True)
    shares = NoiseShares(**{**GIVEN, "squared_sensitivity": codec.squared_sensitivity, "dimension": codec.width})
    encoded = codec.encode(np.full(100, 0.1), randomness=lambda count: prg.keystream(bytes(32), count))
    assert int(np.sum(encoded**2)) <= shares.squared_sensitivity
    assert shares.draw(Stream(1)).shape == encoded.shape
