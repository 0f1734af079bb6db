"""Released answers: noise as wide as promised, a limit that holds, and the attack that plain decryption falls to."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from scipy.stats import kstest

from counts import counts
from mibao.errors import BudgetExhausted, InputError, IntegrityError, KeyMismatch
from mibao.he.engine_seal import SealEngine
from mibao.he.noise_bound import NoiseRules, secret_norm_limit
from mibao.he.ntt import inverse_ntt, modular_product, ntt
from mibao.he.parameters import Parameters
from mibao.he.release import ReleasePolicy, Releasing, check_secret, decrypt_for_release, flooding_noise
from mibao.he.release_state import ReleaseFile
from mibao.he.residue_packing import unpack
from mibao.types import RandomId

DEGREE, SCALE, WEIGHT_SCALE = 8192, 2.0**60, 2.0**20
ENGINE = SealEngine(Parameters(ring_degree=DEGREE, modulus_bits=(60, 50, 60), scale_bits=60))
PRIMES = ENGINE.primes
SECRET = ENGINE.generate_secret_key()
RULES = NoiseRules(degree=DEGREE, primes=PRIMES, special_prime=None, secret_norm=secret_norm_limit(DEGREE))
WEIGHTS = np.array([0.5, -1.25, 0.75])
FRESH = RULES.fresh(message=4.0, scale=SCALE)
TERMS = [RULES.multiply_constant(FRESH, message=abs(float(weight)), scale=WEIGHT_SCALE) for weight in WEIGHTS]
KNOWN = RULES.add(RULES.add(TERMS[0], TERMS[1]), TERMS[2])
POLICY = ReleasePolicy(answers_limit=4, statistical_bits=40, known=KNOWN)
ATTACKED_SCALE = 2.0**30
KEY_ID = RandomId(bytes(range(16)))


class Counting:
    """A count without a file."""

    def __init__(self):
        self.taken = []

    def take(self, *, policy, limit, answers):
        self.taken += answers


def answer_and_logits(seed=0):
    """What an honest host computes, and what is right."""
    records = np.random.default_rng(seed).uniform(-4, 4, (3, DEGREE // 2))
    encrypted = [ENGINE.encrypt(SECRET, ENGINE.encode(row, scale=SCALE)) for row in records]
    weights = [ENGINE.encode_constant(float(weight), scale=WEIGHT_SCALE) for weight in WEIGHTS]
    return ENGINE.store_ciphertexts([ENGINE.sum_of_products(encrypted, weights)]), WEIGHTS @ records


def releasing(policy=POLICY, count=None, secret=SECRET):
    return Releasing(engine=ENGINE, secret=secret, policy=policy, count=count or Counting())


def test_a_released_answer_is_off_by_the_noise_of_its_policy_and_no_more():
    answer, logits = answer_and_logits()
    released = decrypt_for_release([answer], releasing())[0]
    errors = (released - logits) / POLICY.slot_error_std(DEGREE)
    assert abs(np.std(errors) - 1) < 4.5 / math.sqrt(DEGREE)
    assert kstest(errors, "norm").pvalue > 1e-4
    assert POLICY.slot_error_std(DEGREE) < 2e-3


def test_the_noise_is_at_least_what_the_theorem_asks_for():
    policy = replace(POLICY, answers_limit=100, statistical_bits=45)
    asked = 12 * 100 * Fraction(policy.known.noise) ** 2 * 2**45
    assert asked <= policy.variance < asked + 1
    assert policy.noise_std == pytest.approx(math.sqrt(12 * 100) * 2 ** (45 / 2) * policy.known.noise)


def test_the_noise_on_the_polynomial_is_a_gaussian_of_that_width():
    size = counts(short=1, long=20)
    drawn = np.array(
        [x for i in range(size) for x in flooding_noise(bytes([i]) * 32, degree=8192, variance=POLICY.variance)]
    )
    scaled = drawn.astype(np.float64) / POLICY.noise_std
    assert kstest(scaled, "norm").pvalue > 1e-4
    assert abs(scaled.var() - 1) < 4.5 * math.sqrt(2 / scaled.size)
    low_bits = np.bincount((drawn & 15).astype(np.int64), minlength=16)  # wide as it is, its low bits are uniform
    assert np.max(np.abs(low_bits - drawn.size / 16)) < 5 * math.sqrt(drawn.size / 16)


def test_a_repeated_answer_gets_the_same_noise_and_another_one_other_noise():
    (answer, logits), (other, others) = answer_and_logits(0), answer_and_logits(1)
    first, second = decrypt_for_release([answer, other], releasing())
    assert np.array_equal(decrypt_for_release([answer], releasing())[0], first)
    correlation = np.corrcoef(first - logits, second - others)[0, 1]
    assert abs(correlation) < 5 / math.sqrt(DEGREE / 2)


def test_another_key_gets_other_noise():
    answer, _ = answer_and_logits()
    elsewhere = releasing(secret=ENGINE.generate_secret_key())
    assert not np.array_equal(decrypt_for_release([answer], elsewhere), decrypt_for_release([answer], releasing()))


# The attack: with real parts of two results and their ciphertexts the key follows by linear algebra.


def recovered_secret(answers, decrypted):
    """The key's coefficients from two answers and what they decrypt to, as Li and Micciancio's section 3 does it.

    A result's real parts give ``m + conjugate(m)``, and ``m = c0 + c1 * s``: at an NTT point and its conjugate (the
    same entry from the other end) two results are two equations for two unknowns.
    """
    prime = PRIMES[0]
    rows = []
    for answer, values in zip(answers, decrypted, strict=True):
        c0, c1 = unpack(answer, primes=PRIMES, components=2, degree=DEGREE)[:, 0].astype(np.int64)
        doubled = ENGINE.encode(2 * values, scale=ATTACKED_SCALE).handle.to_bytes()
        known = np.frombuffer(doubled[-8 * DEGREE * len(PRIMES) :], dtype="<u8")[:DEGREE].astype(np.int64)
        rows.append((c1, c1[::-1], (known - c0 - c0[::-1]) % prime))
    (a, b, e), (c, d, f) = rows
    product = partial(modular_product, prime=prime)
    determinant = (product(a, d) - product(b, c)) % prime
    inverse = np.array([pow(int(value), -1, prime) for value in determinant], dtype=np.int64)
    secret = product((product(d, e) - product(b, f)) % prime, inverse)
    return inverse_ntt(secret.astype(np.uint64), prime=prime)


SECRET_COEFFICIENTS = inverse_ntt(np.frombuffer(ENGINE.store_secret_key(SECRET), dtype="<u8")[:DEGREE], prime=PRIMES[0])


def attacked_answers():
    """Two sums of known numbers, at a scale at which a decoded result tells its polynomial exactly."""
    rows = np.random.default_rng(2).uniform(-4, 4, (4, DEGREE // 2))
    held = [ENGINE.encrypt(SECRET, ENGINE.encode(row, scale=ATTACKED_SCALE)) for row in rows]
    return [ENGINE.store_ciphertexts([ENGINE.add(held[index], held[index + 1])]) for index in (0, 2)]


def test_plain_decryption_gives_the_key_away_and_a_release_does_not():
    answers = attacked_answers()
    loaded = [ENGINE.load_ciphertexts(answer, count=1, level=0, scale=ATTACKED_SCALE)[0] for answer in answers]
    plain = [ENGINE.decrypt(SECRET, ciphertext) for ciphertext in loaded]
    assert np.array_equal(recovered_secret(answers, plain), SECRET_COEFFICIENTS)

    fresh = RULES.fresh(message=4.0, scale=ATTACKED_SCALE)
    policy = ReleasePolicy(answers_limit=2, statistical_bits=40, known=RULES.add(fresh, fresh))
    guessed = recovered_secret(answers, decrypt_for_release(answers, releasing(policy)))
    assert np.max(np.abs(guessed)) > 1e15  # no ternary polynomial, nor near one
    assert np.mean(np.sign(guessed) == SECRET_COEFFICIENTS) == pytest.approx(1 / 3, abs=0.03)


# The count.


def counted(tmp_path, policy=POLICY):
    kept = ReleaseFile(tmp_path / "released", key_id=KEY_ID)
    kept.create(policy)
    return kept


def take(kept, *answers, policy=POLICY):
    kept.take(policy=policy.digest(), limit=policy.answers_limit, answers=[bytes([a]) * 32 for a in answers])


def test_a_key_is_retired_at_its_limit_and_stays_so(tmp_path):
    kept = counted(tmp_path, replace(POLICY, answers_limit=2))
    policy = replace(POLICY, answers_limit=2)
    answers = [answer_and_logits(seed)[0] for seed in range(3)]
    first = decrypt_for_release(answers[:2], releasing(policy, kept))
    again = ReleaseFile(tmp_path / "released", key_id=KEY_ID)  # as after a restart
    with pytest.raises(BudgetExhausted, match="release: 2 of 2 answers are out, and 1 more were asked for"):
        decrypt_for_release(answers[2:], releasing(policy, again))
    assert again.released() == 2
    repeated = decrypt_for_release(answers[:2], releasing(policy, again))
    assert np.array_equal(repeated, first)
    assert again.released() == 2


def test_the_count_is_taken_before_anything_is_decrypted():
    class Refusing:
        def take(self, **_):
            raise BudgetExhausted("release: spent")

    class Deaf(SealEngine):
        def decrypt(self, secret, ciphertext):
            raise AssertionError("decrypted without a count")

    answer, _ = answer_and_logits()
    deaf = replace(releasing(count=Refusing()), engine=Deaf(ENGINE.parameters))
    with pytest.raises(BudgetExhausted, match="spent"):
        decrypt_for_release([answer], deaf)


def test_answers_beyond_the_limit_are_refused_together(tmp_path):
    kept = counted(tmp_path)
    take(kept, 1, 2, 3)
    with pytest.raises(BudgetExhausted, match="release: 3 of 4 answers are out, and 2 more"):
        take(kept, 4, 5)
    take(kept, 4, 4, 1)
    assert kept.released() == 4


def test_an_entry_cut_short_by_a_crash_is_no_release(tmp_path):
    kept = counted(tmp_path)
    take(kept, 1, 2)
    whole = (tmp_path / "released").read_bytes()
    (tmp_path / "released").write_bytes(whole[:-5])
    assert kept.released() == 1
    take(kept, 3)
    assert (tmp_path / "released").read_bytes() == whole[:-32] + bytes([3]) * 32


def test_no_count_goes_down_when_entries_are_damaged(tmp_path):
    kept = counted(tmp_path)
    take(kept, 1, 2, 3)
    path = tmp_path / "released"
    path.write_bytes(path.read_bytes()[:-64] + bytes(64))  # as a file system may leave it after a power failure
    assert kept.released() == 3


def test_a_missing_record_is_no_fresh_count(tmp_path):
    with pytest.raises(InputError, match=r"released: cannot be opened .*; nothing is released"):
        take(ReleaseFile(tmp_path / "released", key_id=KEY_ID), 1)


def test_a_record_is_made_once(tmp_path):
    kept = counted(tmp_path)
    with pytest.raises(InputError, match="released exists already"):
        kept.create(POLICY)


def test_the_record_of_another_key_is_refused(tmp_path):
    counted(tmp_path)
    with pytest.raises(KeyMismatch, match="released: the record of another key"):
        take(ReleaseFile(tmp_path / "released", key_id=RandomId(bytes(16))), 1)


@pytest.mark.parametrize("at", [0, 9, 30, 60, 95])
def test_a_damaged_header_is_refused(tmp_path, at):
    kept = counted(tmp_path)
    data = bytearray((tmp_path / "released").read_bytes())
    data[at] ^= 1
    (tmp_path / "released").write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="no record of released answers, or a damaged one"):
        take(kept, 1)


@pytest.mark.parametrize(
    "change", [{"answers_limit": 9}, {"statistical_bits": 41}, {"known": replace(KNOWN, noise=9.0)}]
)
def test_a_key_that_released_under_one_policy_releases_under_no_other(tmp_path, change):
    kept = counted(tmp_path)
    with pytest.raises(InputError, match="release: this key releases under another policy"):
        take(kept, 1, policy=replace(POLICY, **change))


# Refusals.


@pytest.mark.parametrize("bits", [0, 39, 129, -40])
def test_fewer_than_forty_bits_are_refused(bits):
    with pytest.raises(InputError, match="release: expected 40 to 128 statistical bits"):
        replace(POLICY, statistical_bits=bits)


@pytest.mark.parametrize("limit", [0, -1, (1 << 24) + 1])
def test_a_limit_out_of_range_is_refused(limit):
    with pytest.raises(InputError, match="release: expected a limit of 1 to 16777216 answers"):
        replace(POLICY, answers_limit=limit)


@pytest.mark.parametrize("noise", [0.0, -1.0, math.inf, math.nan])
def test_a_bound_that_bounds_nothing_is_refused(noise):
    with pytest.raises(InputError, match="release: expected a positive, finite bound"):
        replace(POLICY, known=replace(KNOWN, noise=noise))


def test_noise_wider_than_can_be_sampled_is_refused():
    with pytest.raises(InputError, match=r"release: noise of .* cannot be sampled"):
        replace(POLICY, known=replace(KNOWN, noise=2.0**90))


def test_noise_that_does_not_fit_the_modulus_is_refused_before_it_is_counted():
    answer, _ = answer_and_logits()
    count = Counting()
    crowded = replace(KNOWN, message=2.0**29)
    with pytest.raises(InputError, match="does not fit the modulus of 110 bits left in an answer"):
        decrypt_for_release([answer], releasing(replace(POLICY, known=crowded), count))
    assert count.taken == []


def test_an_answer_of_another_length_or_out_of_range_is_refused_before_it_is_counted():
    answer, _ = answer_and_logits()
    count = Counting()
    with pytest.raises(IntegrityError, match="residues: expected 225280 bytes, got 225272"):
        decrypt_for_release([answer[:-8]], releasing(count=count))
    with pytest.raises(IntegrityError, match="residues: one is not under its prime"):
        decrypt_for_release([answer[:-8] + b"\xff" * 8], releasing(count=count))
    assert count.taken == []


def test_a_secret_larger_than_the_bound_allows_is_refused():
    large = ntt(np.ones(DEGREE, dtype=np.int64), prime=PRIMES[0])
    with pytest.raises(InputError, match="release: this key's secret is larger than the noise's bound allows"):
        check_secret(large.tobytes(), prime=PRIMES[0], degree=DEGREE)


def test_nothing_asked_for_is_nothing_released():
    assert decrypt_for_release([], releasing()).shape == (0, DEGREE // 2)
