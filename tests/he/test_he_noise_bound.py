"""The proven bound lies over the noise of every circuit that SEAL evaluates."""

from functools import partial, reduce
from types import SimpleNamespace

import numpy as np
import pytest
import seal
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import InputError
from mibao.he.noise_bound import Bounded, NoiseRules, secret_norm_limit
from mibao.he.ntt import embedding, inverse_ntt

PREFIX = 113  # SEAL's header of a ciphertext


class Library:
    """SEAL as it is, with the secret at hand: noise is read from the polynomials, not from decoded slots."""

    def __init__(self, degree, bits):
        chosen = seal.EncryptionParameters(seal.scheme_type.ckks)
        chosen.set_poly_modulus_degree(degree)
        primes = seal.CoeffModulus.Create(degree, list(bits))
        chosen.set_coeff_modulus(primes)
        self.degree = degree
        self.context = seal.SEALContext(chosen, True, seal.sec_level_type.none)
        generator = seal.KeyGenerator(self.context)
        self.secret = generator.secret_key()
        self.encryptor = seal.Encryptor(self.context, self.secret)
        self.evaluator, self.encoder = seal.Evaluator(self.context), seal.CKKSEncoder(self.context)
        self.relinearization, self.rotations = generator.create_relin_keys(), seal.GaloisKeys()
        generator.create_galois_keys([5], self.rotations)
        values = [prime.value() for prime in primes]
        self.rules = NoiseRules(
            degree=degree, primes=values[:-1], special_prime=values[-1], secret_norm=secret_norm_limit(degree)
        )
        stored = np.frombuffer(self.secret.to_string()[-8 * degree * len(values) :], dtype="<u8")
        self.secret_residues = stored.reshape(len(values), degree)
        self.secret_coefficients = inverse_ntt(self.secret_residues[0], prime=values[0])

    def encode(self, values, ciphertext, scale):
        """The values at the ciphertext's level."""
        encoded = self.encoder.encode(values, scale)
        self.evaluator.mod_switch_to_inplace(encoded, ciphertext.parms_id())
        return encoded

    def noise(self, ciphertext, right):
        """Canonical norm of what the ciphertext decrypts to, less the encoding of what it should be."""
        encoded = self.encode(np.ascontiguousarray(right), ciphertext, ciphertext.scale())
        less = self.evaluator.sub_plain(ciphertext, encoded)
        primes = self.rules.primes[: less.coeff_modulus_size()]
        parts = np.frombuffer(less.to_string()[PREFIX:], dtype="<u8").reshape(2, len(primes), self.degree)
        residues = []
        for index, prime in enumerate(primes):
            whole = parts[0, index].astype(object) + parts[1, index].astype(object) * self.secret_residues[index]
            residues.append(inverse_ntt((whole % prime).astype(np.uint64), prime=prime).astype(object))
        modulus, value = int(primes[0]), residues[0]
        for prime, residue in zip(primes[1:], residues[1:], strict=True):
            value = value + modulus * ((residue - value) * pow(modulus, -1, int(prime)) % int(prime))
            modulus *= int(prime)
        value = (value + modulus // 2) % modulus - modulus // 2
        return float(np.max(np.abs(embedding(value.astype(np.float64)))))


LIBRARY = Library(4096, (50, 36, 36, 50))
SLOTS = 2048


def random_circuit(rng, steps):
    """A ciphertext, what it should decrypt to, and its bound, after some random steps."""
    bound, scale_bits = float(rng.uniform(0.1, 4)), int(rng.integers(24, 34))
    values = rng.uniform(-bound, bound, SLOTS)
    library, rules, evaluator = LIBRARY, LIBRARY.rules, LIBRARY.evaluator
    state = SimpleNamespace(
        ciphertext=library.encryptor.encrypt_symmetric(library.encoder.encode(values, 2.0**scale_bits)),
        right=values,
        known=rules.fresh(message=bound, scale=2.0**scale_bits),
    )
    yield state
    for step in steps:
        room = sum(prime.bit_length() for prime in rules.primes[: len(rules.primes) - state.known.level])
        bits = np.log2(state.known.scale) + np.log2(max(state.known.message, 1)) + 3
        vector = rng.uniform(-1, 1, SLOTS)
        encode = partial(library.encode, vector, state.ciphertext)
        if step == "square" and 2 * bits < room:
            evaluator.square_inplace(state.ciphertext)
            evaluator.relinearize_inplace(state.ciphertext, library.relinearization)
            state.right, state.known = state.right**2, rules.relinearize(rules.multiply(state.known, state.known))
        elif step == "rescale" and len(rules.primes) > state.known.level + 1 and np.log2(state.known.scale) > 56:
            evaluator.rescale_to_next_inplace(state.ciphertext)
            state.known = rules.rescale(state.known)
        elif step == "drop" and len(rules.primes) > state.known.level + 1 and bits < room - 40:
            evaluator.mod_switch_to_next_inplace(state.ciphertext)
            state.known = rules.drop(state.known)
        elif step == "rotate":
            evaluator.rotate_vector_inplace(state.ciphertext, 5, library.rotations)
            state.right, state.known = np.roll(state.right, -5), rules.rotate(state.known)
        elif step == "plain" and bits + 20 < room:
            evaluator.multiply_plain_inplace(state.ciphertext, encode(2.0**20))
            state.right, state.known = (
                state.right * vector,
                rules.multiply_plain(state.known, message=1.0, scale=2.0**20),
            )
        elif step == "constant" and bits + 10 < room:
            constant = library.encode(0.7, state.ciphertext, 2.0**10)
            evaluator.multiply_plain_inplace(state.ciphertext, constant)
            state.right, state.known = (
                state.right * 0.7,
                rules.multiply_constant(state.known, message=0.7, scale=2.0**10),
            )
        elif step == "add_plain":
            evaluator.add_plain_inplace(state.ciphertext, encode(state.ciphertext.scale()))
            state.right, state.known = state.right + vector, rules.add_plain(state.known, message=1.0)
        elif step == "add":
            evaluator.add_inplace(state.ciphertext, state.ciphertext)
            state.right, state.known = 2 * state.right, rules.add(state.known, state.known)
        yield state


STEPS = ["square", "rescale", "drop", "rotate", "plain", "constant", "add_plain", "add"]


@settings(max_examples=counts(short=60, long=1000), deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=7), seed=st.integers(0, 2**32 - 1))
def test_no_circuit_leaves_its_bound(steps, seed):
    for state in random_circuit(np.random.default_rng(seed), steps):
        assert state.ciphertext.scale() == pytest.approx(state.known.scale, rel=1e-12)
        assert np.max(np.abs(state.right)) <= state.known.message
    # To measure it the right answer is encoded once more, which rounds as any encoding does.
    known = state.known
    slack = LIBRARY.rules.encoding_error(message=known.message, scale=known.scale)
    assert LIBRARY.noise(state.ciphertext, state.right) <= known.noise + known.encoding + slack
    decoded = LIBRARY.encoder.decode(seal.Decryptor(LIBRARY.context, LIBRARY.secret).decrypt(state.ciphertext))
    if known.noise + known.encoding + known.message * known.scale < np.prod(
        [float(prime) for prime in LIBRARY.rules.primes[: len(LIBRARY.rules.primes) - known.level]]
    ) / (2 * LIBRARY.degree):
        assert np.max(np.abs(decoded - state.right)) <= known.slot_error * (1 + 1e-6) + 1e-9


def test_the_bound_is_over_fresh_noise_and_not_beyond_all_measure():
    values = np.random.default_rng(0).uniform(-1, 1, SLOTS)
    fresh = LIBRARY.rules.fresh(message=1.0, scale=2.0**30)
    measured = [
        LIBRARY.noise(LIBRARY.encryptor.encrypt_symmetric(LIBRARY.encoder.encode(values, 2.0**30)), values)
        for _ in range(5)
    ]
    assert max(measured) < fresh.noise < 500 * max(measured)


def test_a_secret_is_far_under_its_limit():
    norm = np.max(np.abs(embedding(LIBRARY.secret_coefficients.astype(np.float64))))
    assert np.sqrt(2 * 4096 / 3) < norm < secret_norm_limit(4096)


def test_a_linear_layer_of_whole_weights_stays_under_its_bound():
    rng = np.random.default_rng(3)
    weights, records = rng.normal(size=9), rng.uniform(-4, 4, (9, SLOTS))
    whole, total = np.rint(weights * 2.0**16), None
    for weight, row in zip(whole, records, strict=True):
        fresh = LIBRARY.encryptor.encrypt_symmetric(LIBRARY.encoder.encode(row, 2.0**40))
        product = LIBRARY.evaluator.multiply_plain(fresh, LIBRARY.encode(float(weight / 2.0**16), fresh, 2.0**16))
        total = product if total is None else LIBRARY.evaluator.add(total, product)
    rules = LIBRARY.rules
    fresh = rules.fresh(message=4.0, scale=2.0**40)
    terms = [rules.multiply_constant(fresh, message=abs(float(weight)), scale=2.0**16) for weight in weights]
    known = reduce(rules.add, terms)
    known = rules.rescale(known)
    total = LIBRARY.evaluator.rescale_to_next(total)
    measured = LIBRARY.noise(total, weights @ records)
    assert measured <= known.noise + known.encoding + rules.encoding_error(message=known.message, scale=known.scale)


RULES = LIBRARY.rules
VALUE = Bounded(message=1.0, scale=2.0**20, noise=1.0, encoding=1.0, level=0)


def test_summands_that_do_not_match_are_refused():
    with pytest.raises(InputError, match="noise bound: expected summands of one level and scale"):
        RULES.add(VALUE, Bounded(message=1.0, scale=2.0**21, noise=1.0, encoding=1.0, level=0))
    with pytest.raises(InputError, match="noise bound: expected summands of one level and scale"):
        RULES.add(VALUE, RULES.drop(VALUE))


def test_factors_that_do_not_match_are_refused():
    with pytest.raises(InputError, match="noise bound: expected factors of one level and two components"):
        RULES.multiply(VALUE, RULES.multiply(VALUE, VALUE))


def test_three_components_are_not_rotated():
    with pytest.raises(InputError, match="noise bound: expected a ciphertext of two components"):
        RULES.rotate(RULES.multiply(VALUE, VALUE))


def test_the_last_prime_is_not_divided_out():
    with pytest.raises(InputError, match="noise bound: no prime is left"):
        RULES.rescale(RULES.drop(RULES.drop(VALUE)))


def test_a_key_is_not_switched_without_a_special_prime():
    rules = NoiseRules(degree=2048, primes=[12289], special_prime=None, secret_norm=1.0)
    with pytest.raises(InputError, match="noise bound: switching a key takes a special prime"):
        rules.rotate(VALUE)
