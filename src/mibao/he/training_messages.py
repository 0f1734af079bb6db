"""Training's three messages as bytes: records and keys to the host, weights both ways, each bound to its run.

Source: ``docs/spec/he-bundle.md``, "Training".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mibao.codec.canonical import Value
from mibao.errors import IntegrityError, KeyMismatch
from mibao.he import envelope
from mibao.he.engine import Engine, GaloisKeys, RelinearizationKey
from mibao.he.envelope import Envelope, Kind
from mibao.he.leveled import Leveled, level_scales
from mibao.he.training import MAX_ITERATIONS, EncryptedRecords, EncryptedWeights, TrainingPlan
from mibao.types import RandomId

_MOST_AHEAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMessages:
    """How both sides of one run write and read what they send.

    Attributes:
        run_id: Names the run; drawn by whoever starts it.
        plan: What both sides know.
        engine: Of :data:`mibao.he.training.PARAMETERS`.
    """

    run_id: RandomId
    plan: TrainingPlan
    engine: Engine

    def records_bytes(self, records: EncryptedRecords) -> bytes:
        """The key holder's first message."""
        body = self.engine.store_ciphertexts([value.ciphertext for value in (*records.packed, records.label_moment)])
        return self._written(Kind.TRAINING_RECORDS, self._planned(), body)

    def records_from(self, data: bytes) -> EncryptedRecords:
        """The reverse, at the host.

        Raises:
            InputError: another kind of message.
            IntegrityError: it was altered or truncated, or holds what the library refuses.
            KeyMismatch: it is of another run, or of another plan.
        """
        opened = self._opened(data, Kind.TRAINING_RECORDS, *self._planned())
        if {name: opened.header[name] for name in self._planned()} != self._planned():
            raise KeyMismatch("training records: made for another plan")
        *packed, moment = self._loaded(opened, levels=[0] * (self.plan.ciphertexts + 1))
        return EncryptedRecords(packed=packed, label_moment=moment)

    def keys_bytes(self, keys: tuple[RelinearizationKey, GaloisKeys]) -> bytes:
        """The host's keys: nothing secret."""
        relinearization = self.engine.store_relinearization_key(keys[0])
        galois = self.engine.store_galois_keys(keys[1])
        header: dict[str, Value] = {"relinearization_bytes": len(relinearization)}
        return self._written(Kind.TRAINING_KEYS, header, relinearization + galois)

    def keys_from(self, data: bytes) -> tuple[RelinearizationKey, GaloisKeys]:
        """The reverse. Raises as :meth:`records_from`."""
        opened = self._opened(data, Kind.TRAINING_KEYS, "relinearization_bytes")
        split = opened.header["relinearization_bytes"]
        if type(split) is not int or not 0 <= split <= len(opened.body):
            raise IntegrityError("training keys: field relinearization_bytes is malformed")
        relinearization = self.engine.load_relinearization_key(opened.body[:split])
        return relinearization, self.engine.load_galois_keys(opened.body[split:], steps=self.plan.rotations)

    def weights_bytes(self, state: EncryptedWeights, *, iteration: int) -> bytes:
        """Weights after ``iteration`` iterations, either way."""
        values = (state.weights, *(value for value, _ in state.ahead))
        header: dict[str, Value] = {
            "iteration": iteration,
            "levels": [value.level for value in values],
            "factors": [float(factor) for _, factor in state.ahead],
        }
        body = b"".join(self.engine.store_ciphertexts([value.ciphertext]) for value in values)
        return self._written(Kind.TRAINING_WEIGHTS, header, body)

    def weights_from(self, data: bytes, *, iteration: int) -> EncryptedWeights:
        """The reverse. Raises as :meth:`records_from`; ``KeyMismatch`` also when they are of another iteration."""
        opened = self._opened(data, Kind.TRAINING_WEIGHTS, "iteration", "levels", "factors")
        levels, factors = opened.header["levels"], opened.header["factors"]
        if not isinstance(levels, list) or not isinstance(factors, list) or len(levels) != len(factors) + 1:
            raise IntegrityError("training weights: fields levels and factors do not match")
        if not 1 <= len(factors) <= _MOST_AHEAD or not all(type(factor) is float for factor in factors):
            raise IntegrityError("training weights: field factors is malformed")
        if not all(type(level) is int and 0 <= level < len(self.engine.primes) for level in levels):
            raise IntegrityError("training weights: field levels is malformed")
        held = opened.header["iteration"]
        if type(held) is not int or not 0 <= held <= MAX_ITERATIONS:
            raise IntegrityError("training weights: field iteration is malformed")
        if held != iteration:
            raise KeyMismatch(f"training weights: expected those after {iteration} iterations, got {held}")
        weights, *ahead = self._loaded(opened, levels=[int(str(level)) for level in levels])
        pairs = zip(ahead, [float(str(factor)) for factor in factors], strict=True)
        return EncryptedWeights(weights=weights, ahead=tuple(pairs))

    def _planned(self) -> dict[str, Value]:
        plan = self.plan
        return {
            "rows": plan.rows,
            "features": plan.features,
            "iterations": plan.iterations,
            "step": float(plan.step),
        }

    def _written(self, kind: Kind, fields: dict[str, Value], body: bytes) -> bytes:
        return envelope.encode(Envelope(kind=kind, header={"run": self.run_id.value, **fields}, body=body))

    def _opened(self, data: bytes, kind: Kind, *names: str) -> Envelope:
        opened = envelope.decode(data, kind)
        envelope.check_fields(opened, "run", *names)
        if envelope.id_of(opened, "run") != self.run_id:
            raise KeyMismatch(f"{envelope.NAMES[kind]}: made for another run")
        return opened

    def _loaded(self, opened: Envelope, *, levels: Sequence[int]) -> list[Leveled]:
        """One ciphertext at each of ``levels``."""
        scales, start, loaded = level_scales(self.engine), 0, []
        for level in levels:
            end = start + self.engine.ciphertext_bytes(level=level)
            (ciphertext,) = self.engine.load_ciphertexts(
                opened.body[start:end], count=1, level=level, scale=scales[level]
            )
            loaded.append(Leveled(ciphertext=ciphertext, level=level))
            start = end
        if start != len(opened.body):
            raise IntegrityError(f"{envelope.NAMES[opened.kind]}: its size does not match its header")
        return loaded
