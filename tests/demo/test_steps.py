"""Each step with the thing it relies on broken: its report must say so."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mibao import deid, ledger, sealed
from mibao.crypto import rng
from mibao.demo import computing, deidentifying, hospitals, recording, sealing, training
from mibao.demo.model import LinearModel
from mibao.demo.outcome import REFUSALS
from mibao.demo.surroundings import Surroundings
from mibao.errors import IntegrityError, KeyMismatch, MissingExtra
from mibao.events import Event, PersonalDataRestored
from mibao.federated import Task
from mibao.he import Client, files
from mibao.types import ComputeMode, KeyedHash, Refusal

RNG = np.random.default_rng(1)
MODEL = LinearModel(weights=RNG.normal(size=5), bias=0.25)
FEATURES = RNG.normal(size=(40, 5)).clip(-3, 3)
LABELS = FEATURES[:, 4] > 0
EVENTS: list[Event] = [PersonalDataRestored(scope=KeyedHash(bytes(32)), placeholders=n) for n in range(9)]


def evaluate_here(bundle: Path, server_keys: Path, request: Path, answer: Path) -> None:
    files.write_bytes(answer, files.read_server(bundle, server_keys).evaluate(files.read_bytes(request)))


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    return Surroundings(
        folder=tmp_path, randomness=rng.random_bytes, clock_s=time.perf_counter, compute_host=evaluate_here
    )


def test_the_note_comes_back_and_nothing_of_it_is_in_the_masked_one(around: Surroundings) -> None:
    report, cost, events = deidentifying.deidentify(around)
    assert report.restored
    assert report.original != report.masked
    for secret in ("Lin", "林晓雨", "13800138000", "0013 8000", "lin.xiaoyu", "990101198707145121", "BC-2026-00417"):
        assert secret in report.original
        assert secret not in report.masked
        assert secret not in repr(events)
    assert cost.protected_bytes == len((around.folder / "note.masked.txt").read_bytes())


def test_a_note_that_does_not_come_back_is_reported(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = deid.restore
    monkeypatch.setattr(deid, "restore", lambda text, *, vault: replace(honest(text, vault=vault), text=text))
    assert not deidentifying.deidentify(around)[0].restored


def test_the_sealed_model_comes_back_and_three_attacks_are_refused(around: Surroundings) -> None:
    opened, report, _, events = sealing.seal_and_attack(around, MODEL)
    assert report.byte_identical
    assert report.refused == REFUSALS
    assert np.array_equal(opened.weights, MODEL.weights)
    assert [event.kind for event in events] == ["model-sealed", "model-opened", *["model-refused"] * 3]


def test_an_opened_model_with_other_bytes_is_reported(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = sealed.open_sealed

    def careless(path: Path, output: Path, **options: Any) -> sealed.OpenReport:
        report = honest(path, output, **options)
        output.write_bytes(LinearModel(weights=MODEL.weights + 1e-9, bias=0.0).to_safetensors())
        return report

    monkeypatch.setattr(sealed, "open_sealed", careless)
    assert not sealing.seal_and_attack(around, MODEL)[1].byte_identical


@pytest.mark.parametrize("accepted", REFUSALS)
def test_an_attack_that_is_accepted_is_reported(
    accepted: Refusal, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = sealed.open_sealed

    def gullible(path: Path, output: Path, **options: Any) -> sealed.OpenReport | None:
        try:
            return honest(path, output, **options)
        except (IntegrityError, KeyMismatch) as error:
            if sealed.refusal(error).reason is accepted:
                return None
            raise

    monkeypatch.setattr(sealed, "open_sealed", gullible)
    assert accepted not in sealing.seal_and_attack(around, MODEL)[1].refused


@pytest.mark.parametrize("accepted", REFUSALS)
def test_a_refusal_that_leaves_the_model_behind_is_no_refusal(
    accepted: Refusal, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = sealed.open_sealed

    def leaking(path: Path, output: Path, **options: Any) -> sealed.OpenReport:
        try:
            return honest(path, output, **options)
        except (IntegrityError, KeyMismatch):
            output.write_bytes(b"weights")
            raise

    monkeypatch.setattr(sealed, "open_sealed", leaking)
    assert sealing.seal_and_attack(around, MODEL)[1].refused == ()


@pytest.mark.parametrize("mode", [ComputeMode.ENCRYPTED_DATA, ComputeMode.ENCRYPTED_BOTH])
def test_the_host_sees_neither_key_nor_records_nor_hidden_weights(mode: ComputeMode, around: Surroundings) -> None:
    report, _, event = computing.evaluate(around, MODEL, FEATURES, LABELS, input_bound=3.0, mode=mode)
    assert report.agreement == 1.0
    assert report.max_error < 1e-3
    assert event.mode is mode
    seen = b"".join(path.read_bytes() for path in (around.folder / mode.value / "host").iterdir())
    hidden = [FEATURES[:, 0], FEATURES[0]] + ([MODEL.weights] if mode is ComputeMode.ENCRYPTED_BOTH else [])
    for values in hidden:
        for kind in ("<f8", "<f4"):  # two numbers in a row: four bytes alone turn up by chance
            assert not any(values[at : at + 2].astype(kind).tobytes() in seen for at in range(len(values) - 1))
    secret = (around.folder / mode.value / "client.key").read_bytes()
    assert not any(secret[at : at + 64] in seen for at in range(1024, len(secret) - 64, 4096))


def test_wrong_logits_are_reported(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Client.decrypt
    monkeypatch.setattr(Client, "decrypt", lambda self, answer: -honest(self, answer))
    report = computing.evaluate(around, MODEL, FEATURES, LABELS, input_bound=3.0, mode=ComputeMode.ENCRYPTED_DATA)[0]
    assert report.agreement < 1.0
    assert report.max_error > 1.0


def test_a_host_that_answers_with_other_bytes_is_not_believed(around: Surroundings) -> None:
    def crooked(bundle: Path, server_keys: Path, request: Path, answer: Path) -> None:
        evaluate_here(bundle, server_keys, request, answer)
        content = bytearray(answer.read_bytes())
        content[len(content) // 2] ^= 1
        answer.write_bytes(content)

    with pytest.raises(IntegrityError):
        computing.evaluate(
            replace(around, compute_host=crooked),
            MODEL,
            FEATURES,
            LABELS,
            input_bound=3.0,
            mode=ComputeMode.ENCRYPTED_DATA,
        )


def test_the_ledger_verifies_and_names_the_altered_entry(around: Surroundings) -> None:
    report, cost = recording.record(around, EVENTS)
    assert (report.entries, report.verified) == (len(EVENTS), True)
    assert report.found_index == report.tampered_index == len(EVENTS) // 2
    assert cost.plain_bytes == (around.folder / "events.plain.jsonl").stat().st_size


@pytest.mark.parametrize(
    ("verify", "field", "value"),
    [
        (lambda *_, **__: None, "found_index", None),
        (lambda *_, **__: (_ for _ in ()).throw(IntegrityError("no", index=0)), "verified", False),
    ],
)
def test_a_verifier_that_accepts_or_refuses_everything_is_seen(
    verify: Callable[..., None],
    field: str,
    value: object,
    around: Surroundings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "verify", verify)
    assert getattr(recording.record(around, EVENTS)[0], field) == value


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    # tests/integration/test_demo.py runs it whole, in a process without run-time type checks
    monkeypatch.setattr(training, "ROUNDS", 3)
    monkeypatch.setattr(training, "FEDAVG_ROUNDS", 2)
    monkeypatch.setattr(training, "DROPOUTS", {1: frozenset({2})})


@pytest.mark.usefixtures("short_training")
def test_training_is_private_and_exact_and_names_who_dropped_out(around: Surroundings) -> None:
    run = training.train(around)
    assert run.report.sum_exact
    assert 0 < run.report.epsilon <= 8
    assert run.report.delta == 1e-5
    assert run.report.dropouts == ((1, "Lakeside"),)
    assert len({share.malignant for share in run.report.hospitals}) > 2
    assert run.test_features.shape == (171, 30)
    assert {event.kind for event in run.events} == {
        "secure-sum-released",
        "noise-added",
        "privacy-spent",
        "round-trained",
    }


@pytest.mark.usefixtures("short_training")
def test_a_sum_that_is_not_exact_is_reported(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Task.simulate
    monkeypatch.setattr(Task, "simulate", lambda self, **plan: replace(honest(self, **plan), sum_exact=False))
    assert not training.train(around).report.sum_exact


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install '\.\[demo\]'"):
        hospitals.load_hospitals()
