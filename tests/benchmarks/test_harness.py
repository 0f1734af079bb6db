"""Every row is printed once, and its verdict follows from its figures alone."""

import importlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from benchmarks.harness import Bench, Direction, Judged, Measurement, NotMeasured, Target, run_pillar
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import __main__ as command
from benchmarks import demo, harness
from mibao.errors import InputError

_FIGURES = st.floats(min_value=1e-6, max_value=1e9)
_KEYS = ["id", "name", "ours", "peer", "ratio", "unit", "target", "met"]


def _target(row: str = "speed", **changes: object) -> Target:
    fields = {
        "id": row, "pillar": "pillar", "name": row, "unit": "rows/s", "text": "at least 10",
        "direction": Direction.AT_LEAST, "threshold": 10.0,
    }  # fmt: skip
    return Target(**(fields | changes))


def _rows(targets: list[Target], *benches: Bench) -> dict[object, harness.Row]:
    printed = list(run_pillar("pillar", targets, benches))
    assert [row["id"] for row in printed] == [target.id for target in targets]
    return {row["id"]: row for row in printed}


def _raising(error: Exception) -> Bench:
    def measure() -> Iterator[Measurement]:
        yield Measurement(id="first", ours=11.0)
        raise error

    return Bench(rows=("first", "second"), measure=measure)


@given(figure=_FIGURES, threshold=_FIGURES)
def test_at_least_is_met_from_the_threshold_up_and_at_most_from_it_down(figure: float, threshold: float) -> None:
    at_least = harness.is_met(_target(threshold=threshold), ours=figure, ratio=None)
    at_most = harness.is_met(_target(threshold=threshold, direction=Direction.AT_MOST), ours=figure, ratio=None)
    assert at_least is (figure >= threshold)
    assert at_most is (figure <= threshold)


@given(ours=_FIGURES, peer=_FIGURES, threshold=_FIGURES)
def test_a_row_judged_by_ratio_ignores_the_absolute_figure(ours: float, peer: float, threshold: float) -> None:
    row = harness.judge(
        _target(judged=Judged.RATIO, threshold=threshold), Measurement(id="speed", ours=ours, peer=peer)
    )
    assert row["met"] is (ours / peer >= threshold)
    assert row["ratio"] == pytest.approx(ours / peer, rel=1e-5)


def test_a_row_judged_by_ratio_is_not_met_without_its_peer() -> None:
    row = harness.judge(_target(judged=Judged.RATIO), Measurement(id="speed", ours=1e9, why="peer: gone"))
    assert (row["met"], row["ratio"], row["why"]) == (False, None, "peer: gone")


def test_a_figure_just_short_of_its_target_is_not_rounded_into_it() -> None:
    row = harness.judge(_target(), Measurement(id="speed", ours=9.99999999))
    assert row["met"] is False


def test_a_row_that_only_reports_is_met_once_it_is_measured() -> None:
    target = _target(direction=Direction.REPORT, threshold=None)
    assert harness.judge(target, Measurement(id="speed", ours=0.1))["met"] is True
    assert harness.judge(target, Measurement(id="speed", ours=None))["met"] is False


def test_a_line_has_the_documented_keys_in_order_and_a_reason_only_when_something_is_missing() -> None:
    assert list(harness.judge(_target(), Measurement(id="speed", ours=12.0, peer=6.0))) == _KEYS
    assert list(harness.judge(_target(), Measurement(id="speed", ours=None))) == [*_KEYS, "why"]


def test_a_row_that_nothing_fills_is_printed_unmet_with_a_reason() -> None:
    row = _rows([_target()])["speed"]
    assert (row["ours"], row["met"], row["why"]) == (None, False, "no benchmark fills it")


@pytest.mark.parametrize(
    "error",
    [
        InputError("the cache is gone"),
        NotMeasured("the cache is gone"),
        OSError("the cache is gone"),
        ImportError("the cache is gone"),
        subprocess.CalledProcessError(1, ["peer"], stderr="Traceback\nValueError: the cache is gone\n"),
    ],
)
def test_a_benchmark_that_fails_keeps_what_it_measured_and_gives_its_reason_for_the_rest(error: Exception) -> None:
    rows = _rows([_target("first"), _target("second")], _raising(error))
    assert (rows["first"]["ours"], rows["first"]["met"]) == (11.0, True)
    assert (rows["second"]["ours"], rows["second"]["met"]) == (None, False)
    assert str(rows["second"]["why"]).endswith("the cache is gone")


def test_an_error_that_nobody_foresaw_is_not_hidden_in_a_row() -> None:
    with pytest.raises(ZeroDivisionError):
        _rows([_target("first"), _target("second")], _raising(ZeroDivisionError()))


def test_a_pillar_without_a_module_prints_its_rows_with_the_import_error() -> None:
    (row,) = run_pillar("pillar", [_target()])
    assert (row["ours"], row["met"]) == (None, False)
    assert "benchmarks.pillar" in str(row["why"])


def test_a_row_that_no_target_lists_is_refused() -> None:
    stray = Bench(rows=("stray",), measure=lambda: [Measurement(id="stray", ours=1.0)])
    with pytest.raises(ValueError, match="stray is unknown"):
        _rows([_target()], stray)


def test_a_row_measured_twice_is_refused() -> None:
    once = Bench(rows=("speed",), measure=lambda: [Measurement(id="speed", ours=1.0)])
    with pytest.raises(ValueError, match="measured twice"):
        _rows([_target()], once, once)


def test_the_sides_take_turns_and_the_median_counts() -> None:
    turns: list[str] = []
    ours, peer = iter([5.0, 1.0, 3.0]), iter([10.0, 30.0, 20.0])

    def side(name: str, figures: Iterator[float]) -> float:
        turns.append(name)
        return next(figures)

    assert harness.in_turn(lambda: side("ours", ours), lambda: side("peer", peer), rounds=3) == [3.0, 20.0]
    assert turns == ["ours", "peer"] * 3


def test_a_peer_that_fails_leaves_ours_measured_with_the_reason() -> None:
    def peer() -> float:
        raise OSError("does not install")

    measured = harness.beside_peer("speed", ours=lambda: 12.0, peer=peer, rounds=3)
    assert (measured.ours, measured.peer) == (12.0, None)
    assert measured.why is not None
    assert "does not install" in measured.why


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ('direction = "upwards"\nthreshold = 1', "upwards"),
        ('direction = "min"', "threshold goes with"),
        ('direction = "report"\nthreshold = 1', "threshold goes with"),
    ],
)
def test_a_target_that_cannot_be_judged_is_refused(tmp_path: Path, change: str, complaint: str) -> None:
    path = tmp_path / "targets.toml"
    path.write_text(f'[[row]]\nid = "a"\npillar = "p"\nname = "n"\nunit = "u"\ntarget = "t"\n{change}\n')
    with pytest.raises(ValueError, match=complaint):
        harness.load_targets(path)


def test_two_targets_with_one_id_are_refused(tmp_path: Path) -> None:
    row = '[[row]]\nid = "a"\npillar = "p"\nname = "n"\nunit = "u"\ntarget = "t"\ndirection = "report"\n'
    path = tmp_path / "targets.toml"
    path.write_text(row * 2)
    with pytest.raises(ValueError, match="stands twice"):
        harness.load_targets(path)


def test_the_command_prints_one_line_for_every_row_of_targets_toml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run_pillar", lambda pillar, targets: run_pillar(pillar, targets, ()))
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        assert command.main([]) == 0
    printed = [json.loads(line)["id"] for line in out.getvalue().splitlines()]
    assert printed == [target.id for target in harness.load_targets()]
    assert "cores" in err.getvalue()
    assert "no benchmark fills it" in " ".join(err.getvalue().split())  # a long list of rows wraps


def test_a_pillar_that_has_no_rows_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["teleport"])
    assert stopped.value.code == 2
    assert "no rows for teleport" in capsys.readouterr().err


def test_the_announced_rows_of_every_module_are_exactly_its_targets() -> None:
    targets = harness.load_targets()
    for pillar in harness.pillars(targets):
        module = importlib.import_module(f"benchmarks.{pillar}")
        announced = [row for bench in module.BENCHES for row in bench.rows]
        assert sorted(announced) == sorted(target.id for target in targets if target.pillar == pillar)


def test_the_demo_rows_come_from_the_documented_report() -> None:
    report = {
        "ok": False,
        "seconds": 7.0,
        "deid": {"restored": True},
        "federated": {"accuracy": 0.93, "pooled_accuracy": 0.97, "epsilon": 6.5, "sum_exact": False},
        "sealed": {"byte_identical": True, "refused": ["altered", "wrong-key"]},
        "he": {"clear_weights": {"agreement": 1.0}, "encrypted_weights": {"agreement": 0.9}},
        "ledger": {"entries": 40, "tampered_index": 7, "found_index": 8},
    }
    found = demo.figures(report, wall_s=8.0)
    assert set(found) == set(demo.ROWS)
    assert found["demo.accuracy_gap"] == pytest.approx(4.0)
    missed = [
        target.id
        for target in harness.load_targets()
        if target.id in found and not harness.is_met(target, ours=found[target.id], ratio=None)
    ]
    assert missed == [
        "demo.accuracy_gap",
        "demo.sum_exact",
        "demo.encrypted_weights_agreement",
        "demo.refused",
        "demo.tampering_found",
    ]


def test_no_peer_script_imports_mibao() -> None:
    scripts = sorted(Path(harness.__file__).parent.glob("peers/*_rows.py"))
    assert scripts
    for path in scripts:
        assert not re.search(r"^\s*(from|import) (mibao|benchmarks)", path.read_text(encoding="utf-8"), re.MULTILINE), (
            path
        )


def test_the_command_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"],
        cwd=Path(harness.__file__).parents[1], capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "ledger" in done.stdout
