import json
import math
from dataclasses import replace
from typing import Any

import pytest

from demo_samples import KEPT
from mibao.demo.outcome import REFUSALS
from mibao.types import Refusal

BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "note not restored": ("deid", {"restored": False}),
    "more than 3 points lost": ("federated", {"accuracy": 0.9499}),
    "accuracy not a number": ("federated", {"accuracy": math.nan}),
    "no privacy": ("federated", {"epsilon": math.inf}),
    "epsilon not a number": ("federated", {"epsilon": math.nan}),
    "epsilon above 8": ("federated", {"epsilon": 8.01}),
    "epsilon zero, which no release has": ("federated", {"epsilon": 0.0}),
    "a sum not exact": ("federated", {"sum_exact": False}),
    "nobody dropped out": ("federated", {"dropouts": ()}),
    "another model came out": ("sealed", {"byte_identical": False}),
    **{
        f"not refused: {missing.value}": ("sealed", {"refused": tuple(r for r in REFUSALS if r is not missing)})
        for missing in REFUSALS
    },
    "refused for a reason nobody tried": ("sealed", {"refused": (*REFUSALS, Refusal.NOT_SEALED)}),
    "clear weights: one row differs": ("clear_weights", {"agreement": 170 / 171}),
    "clear weights: no agreement at all": ("clear_weights", {"agreement": math.nan}),
    "clear weights: logits off": ("clear_weights", {"max_error": 0.002}),
    "encrypted weights: one row differs": ("encrypted_weights", {"agreement": 170 / 171}),
    "encrypted weights: logits off": ("encrypted_weights", {"max_error": math.inf}),
    "ledger does not verify": ("ledger", {"verified": False}),
    "ledger empty": ("ledger", {"entries": 0}),
    "altered entry not found": ("ledger", {"found_index": None}),
    "another entry named": ("ledger", {"found_index": 4}),
}


def test_when_every_promise_is_kept_it_says_so() -> None:
    assert KEPT.ok
    assert KEPT.failures() == ()
    assert KEPT.to_json()["ok"] is True


@pytest.mark.parametrize("promise", BROKEN)
def test_one_broken_promise_is_enough_to_fail_and_is_the_one_named(promise: str) -> None:
    step, change = BROKEN[promise]
    broken = replace(KEPT, **{step: replace(getattr(KEPT, step), **change)})
    assert not broken.ok
    assert len(broken.failures()) == 1
    printed = json.dumps(broken.to_json(), allow_nan=False)
    assert json.loads(printed)["ok"] is False


def test_the_json_object_has_exactly_the_published_keys() -> None:
    assert {key: sorted(value) if isinstance(value, dict) else None for key, value in KEPT.to_json().items()} == {
        "ok": None,
        "seconds": None,
        "deid": ["restored"],
        "federated": [
            *["accuracy", "delta", "dropouts", "epsilon"],
            *["fedavg_accuracy", "pooled_accuracy", "rounds", "sum_exact"],
        ],
        "sealed": ["byte_identical", "refused"],
        "he": ["clear_weights", "encrypted_weights"],
        "ledger": ["entries", "found_index", "tampered_index"],
    }
    assert KEPT.to_json()["he"]["clear_weights"] == {"agreement": 1.0, "max_error": 3e-6, "seconds": 0.5}
