"""The key holder's side: the secret key, requests out, answers in."""

from __future__ import annotations

import hashlib
from typing import NoReturn

import numpy as np
from jaxtyping import Float64, Real
from numpy import ndarray

from mibao.codec.canonical import Value
from mibao.crypto.kdf import domain_tag
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.he import answer_form, envelope
from mibao.he.account import account_fields, account_of, checked_account
from mibao.he.encrypted_weights import encrypted_bundle
from mibao.he.engine import Engine, SecretKey
from mibao.he.engine_seal import engine_for
from mibao.he.envelope import Envelope, Kind
from mibao.he.noise_bound import Bounded
from mibao.he.program import Program
from mibao.he.records import batches, checked_records
from mibao.he.reference import finish
from mibao.he.release import ReleaseCount, ReleasePolicy, Releasing, decrypt_for_release
from mibao.he.release_terms import Release
from mibao.he.spec import MAX_ROWS, CircuitSpec
from mibao.types import ComputeMode, RandomId

_ROOM = envelope.MAX_BYTES[Kind.REQUEST] - 2 * envelope.MAX_HEADER_BYTES  # for ciphertexts in one message


class Client:
    """A secret key bound to one circuit. It cannot be printed, copied or pickled."""

    __slots__ = ("_account", "_engine", "_key_id", "_secret", "_spec")

    def __init__(
        self, *, spec: CircuitSpec, key_id: RandomId, secret: SecretKey, engine: Engine, account: str | None = None
    ) -> None:
        self._spec = spec
        self._account = checked_account(account)
        self._key_id = key_id
        self._secret = secret
        self._engine = engine

    def __repr__(self) -> str:
        return "Client(opaque)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a client holds a secret key: it is not pickled or copied")

    @property
    def spec(self) -> CircuitSpec:
        """The circuit this key is for."""
        return self._spec

    @property
    def key_id(self) -> RandomId:
        """The key's name; it stands in requests and answers and says nothing about the key."""
        return self._key_id

    @property
    def account(self) -> str | None:
        """Whose evaluation keys come from it; a host that is asked by anybody else refuses them."""
        return self._account

    def encrypt(self, records: Real[ndarray, "..."]) -> bytes:
        """A request that carries ``records`` encrypted, packed as the circuit's layout has them.

        Args:
            records: Shape (rows, features), or (rows, ...) as the model takes them; at most 2**20 rows.

        Raises:
            InputError: the records do not suit the circuit, the request would exceed 1 GiB or its answer 256 MiB, or
                this circuit takes records in clear (:func:`mibao.he.request_in_clear`).
        """
        if not self._spec.data_encrypted:
            raise InputError(
                f"{self._spec.mode.value}: data stay in clear at the host; use request_in_clear, or "
                "give them to `mibao he evaluate` as they are"
            )
        values = checked_records(self._spec, records)
        rows = values.shape[0]
        self._spec.check_answer(rows)
        if self._spec.request_bytes(rows) > _ROOM:
            raise InputError(f"request: {rows} rows would exceed 1 GiB; send fewer at a time")
        body = b"".join(
            self._engine.store_ciphertexts(
                [
                    self._engine.encrypt(self._secret, self._engine.encode(slots, scale=self._spec.data_scale))
                    for slots in packed
                ]
            )
            for packed in batches(self._spec, values)
        )
        header: dict[str, Value] = {"circuit": self._spec.circuit_id.value, "key": self._key_id.value, "rows": rows}
        return envelope.encode(Envelope(kind=Kind.REQUEST, header=header, body=body))

    def decrypt(self, answer: bytes) -> Float64[ndarray, "..."]:
        """The model's output, one row a record: probabilities where the model gives them. **Never share it** with
        anyone who could relate it to ciphertexts.

        A CKKS result carries noise that depends on the secret key: whoever gets exact results of chosen ciphertexts
        recovers the key (Li, Micciancio, EUROCRYPT 2021). They are for the key holder's eyes.

        Raises:
            InputError: not an answer.
            IntegrityError: the answer was altered or truncated.
            KeyMismatch: the answer is of another circuit or under another key.
        """
        return finish(self.decrypt_logits(answer), head=self._spec.head, flat=self._spec.flat)

    def decrypt_logits(self, answer: bytes) -> Float64[ndarray, "rows outputs"]:
        """What the circuit computed, before sigmoid or softmax. As :meth:`decrypt`, and never to be shared either."""
        body, rows = self._opened(answer)
        spec, count = self._spec, self._spec.batches(rows) * self._spec.answer.count
        if dropped := spec.answer_dropped_bits:
            prime, degree = self._engine.primes[0], spec.parameters.ring_degree
            body = answer_form.lengthened(body, prime=prime, degree=degree, dropped=dropped)
        stack = self._engine.load_ciphertexts(body, count=count, level=spec.answer_level, scale=spec.answer_scale)
        return self._unpacked([self._engine.decrypt(self._secret, ciphertext) for ciphertext in stack], rows)

    def decrypt_for_release(
        self, answer: bytes, *, answers_limit: int, statistical_bits: int, count: ReleaseCount
    ) -> Float64[ndarray, "..."]:
        """What :meth:`decrypt` gives, through noise that hides the key: **the only answers that may be shared**.

        A repeated answer gets the same noise. Every ciphertext of an answer counts: one or more a batch of rows.

        Args:
            answers_limit: Ciphertexts that this key may ever release; at most what the circuit was compiled for.
            statistical_bits: How little they tell of the key: 40 or more; at most what it was compiled for.
            count: What the key has released, kept for its whole life: :class:`mibao.he.release_state.ReleaseFile`.

        Raises:
            BudgetExhausted: the key is at its limit and retired.
            InputError: the circuit was not compiled for such a release, the key released under other figures, or its
                secret is too large for the noise's bound: draw another key.
            IntegrityError: the answer was altered or truncated.
            KeyMismatch: the answer is of another circuit or under another key.
        """
        policy = self.release_policy(answers_limit=answers_limit, statistical_bits=statistical_bits)
        body, rows = self._opened(answer)
        each = self._spec.ciphertext_bytes(level=self._spec.answer_level)
        parts = [body[start : start + each] for start in range(0, len(body), each)]
        releasing = Releasing(engine=self._engine, secret=self._secret, policy=policy, count=count)
        logits = self._unpacked(list(decrypt_for_release(parts, releasing)), rows)
        return finish(logits, head=self._spec.head, flat=self._spec.flat)

    def release_policy(self, *, answers_limit: int, statistical_bits: int) -> ReleasePolicy:
        """The noise of such a release.

        Raises:
            InputError: fewer than 40 bits, or a circuit compiled without room for it; the message says what to compile
                with.
        """
        wanted, spec = Release(answers_limit=answers_limit, statistical_bits=statistical_bits), self._spec
        if spec.release is None:
            raise InputError(f"release: this circuit leaves no room for noise; compile it with release={wanted}")
        if not spec.release.release.covers(wanted):
            raise InputError(
                f"release: this circuit was compiled with release={spec.release.release}; compile it with {wanted}"
            )
        known = Bounded(
            message=spec.release.message,
            scale=spec.answer_scale,
            noise=spec.release.noise,
            encoding=0.0,  # within the message
            level=spec.answer_level,
        )
        return ReleasePolicy(answers_limit=answers_limit, statistical_bits=statistical_bits, known=known)

    def _opened(self, answer: bytes) -> tuple[bytes | memoryview, int]:
        """An answer's ciphertexts and its rows."""
        opened = envelope.decode(answer, Kind.ANSWER)
        envelope.check_fields(opened, "circuit", "key", "rows")
        check_binding(opened, circuit_id=self._spec.circuit_id, key_id=self._key_id)
        rows = envelope.count_of(opened, "rows", largest=MAX_ROWS)
        if len(opened.body) != self._spec.answer_bytes(rows):
            raise IntegrityError("answer: its size does not match its rows")
        return opened.body, rows

    def _unpacked(self, slots: list[Float64[ndarray, "slots"]], rows: int) -> Float64[ndarray, "rows outputs"]:
        """The entries of each row from all slots, batch by batch; what else the slots hold is dropped."""
        held, count = self._spec.answer.rows, self._spec.answer.count
        parts = [
            self._spec.answer.unpack(
                np.stack(slots[batch * count : (batch + 1) * count]), min(held, rows - batch * held)
            )
            for batch in range(self._spec.batches(rows))
        ]
        return np.concatenate(parts)

    def encrypt_weights(self, program: Program) -> bytes:
        """A bundle for the compute host with every constant of ``program``, biases included, encrypted.

        Raises:
            InputError: the mode leaves weights in clear or another owner encrypts them, or the bundle would exceed
                1 GiB.
        """
        if self._spec.weights_publicly:
            raise InputError("weights: their owner encrypts them under the data owner's public key; use PublicKey")
        return encrypted_bundle(
            self._spec,
            program,
            key_id=self._key_id,
            engine=self._engine,
            encrypt=lambda plaintext: self._engine.encrypt(self._secret, plaintext),
        )

    def public_key(self) -> bytes:
        """``public.key``: what another owner of the weights encrypts them with; it decrypts nothing.

        Raises:
            InputError: in this circuit nobody encrypts but the key holder.
        """
        if not self._spec.weights_publicly:
            raise InputError(
                f"public key: expected {ComputeMode.ENCRYPTED_BOTH.value} with two owners of data and model; "
                f"in this circuit nobody encrypts but the key holder"
            )
        body = self._engine.store_encryption_key(self._engine.generate_encryption_key(self._secret))
        header: dict[str, Value] = {"circuit": self._spec.circuit_id.value, "key": self._key_id.value}
        return envelope.encode(Envelope(kind=Kind.PUBLIC_KEY, header=header, body=body))

    def server_keys(self) -> bytes:
        """``server.keys``: what the host needs to compute under this key, and nothing secret."""
        spec, engine = self._spec, self._engine
        relinearization, galois = b"", b""
        if spec.relinearizes:
            relinearization = engine.store_relinearization_key(engine.generate_relinearization_key(self._secret))
        if spec.rotations:
            galois = engine.store_galois_keys(engine.generate_galois_keys(self._secret, spec.rotations))
        header: dict[str, Value] = {
            "circuit": spec.circuit_id.value,
            "key": self._key_id.value,
            "relinearization_bytes": len(relinearization),
            **account_fields(self._account),
        }
        return envelope.encode(Envelope(kind=Kind.SERVER_KEYS, header=header, body=relinearization + galois))

    def reveal_secret_bytes(self) -> bytes:
        """The whole of ``client.key``. Whoever reads it reads every request and answer."""
        header: dict[str, Value] = {"spec": self._spec.to_value(), "key": self._key_id.value}
        header |= account_fields(self._account)
        body = self._engine.store_secret_key(self._secret)
        return envelope.encode(Envelope(kind=Kind.CLIENT_KEY, header=header, body=body))

    @classmethod
    def from_secret_bytes(cls, data: bytes) -> Client:
        """The client that :meth:`reveal_secret_bytes` wrote.

        Raises:
            InputError: not a client key.
            IntegrityError: the bytes were altered or truncated.
            MissingExtra: seal-python is not installed.
        """
        opened = envelope.decode(data, Kind.CLIENT_KEY)
        account = account_of(opened, "spec", "key")
        spec = envelope.spec_of(opened)
        engine = engine_for(spec.parameters)
        secret = engine.load_secret_key(opened.body)
        return cls(spec=spec, key_id=envelope.id_of(opened, "key"), secret=secret, engine=engine, account=account)


def generate_client(spec: CircuitSpec, *, account: str | None = None) -> Client:
    """A fresh key for a circuit. The library draws it from the operating system.

    The key's name is a hash of a fresh encryption of zero: random, and no function of the key alone.

    Args:
        spec: The circuit.
        account: Whose the evaluation keys are at the host, which refuses them to everybody else.

    Raises:
        InputError: the account is no name of 1 to 64 printable characters.
        MissingExtra: seal-python is not installed.
    """
    checked_account(account)
    engine = engine_for(spec.parameters)
    secret = engine.generate_secret_key()
    digest = hashlib.sha256(domain_tag("he/key-id", engine.public_sample(secret))).digest()
    key_id = RandomId(digest[: RandomId.size])
    return Client(spec=spec, key_id=key_id, secret=secret, engine=engine, account=account)


def check_circuit(opened: Envelope, circuit_id: RandomId) -> None:
    """Refuse a message of another circuit. Raises ``KeyMismatch``."""
    if envelope.id_of(opened, "circuit") != circuit_id:
        raise KeyMismatch(f"{envelope.NAMES[opened.kind]}: made for another circuit")


def check_binding(opened: Envelope, *, circuit_id: RandomId, key_id: RandomId) -> None:
    """Refuse a message of another circuit or another key. Raises ``KeyMismatch``."""
    check_circuit(opened, circuit_id)
    if envelope.id_of(opened, "key") != key_id:
        raise KeyMismatch(f"{envelope.NAMES[opened.kind]}: made under another key")
