from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from command_line import mibao
from mibao.deid.files_folder import JOURNAL, mask_file, masked_files, plan
from mibao.deid.policies import PSEUDONYMS, REPLACE
from mibao.errors import InputError

KEY = bytes(range(32))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "2026").mkdir(parents=True)
    for number in range(4):
        table = pa.table({"name": ["Ann", "Lin"], "note": [f"mail u{number}@example.com", "患者林晓雨"], "n": [1, 2]})
        parquet.write_table(table, folder / f"{'2026/' * (number % 2)}part{number}.parquet")
    return folder


def _run(source: Path, output: Path, engine: str = "local") -> dict[str, str | None]:
    work = plan(source, output, PSEUDONYMS, scope_key=KEY, types=None)
    return {done.name: done.error for done in masked_files(work, engine=engine)}


def test_every_file_is_masked_under_its_name_and_equal_values_are_equal_in_all(source: Path, tmp_path: Path) -> None:
    assert set(_run(source, tmp_path / "out").values()) == {None}
    names = sorted(path.relative_to(source) for path in source.rglob("*.parquet"))
    tables = [parquet.read_table(tmp_path / "out" / name) for name in names]
    assert [table.num_rows for table in tables] == [2] * 4
    assert len({table["name"][0].as_py() for table in tables}) == 1
    assert all(table["note"][0].as_py().startswith("mail <EMAIL_ADDRESS_") for table in tables)
    assert all(table["n"].to_pylist() == [1, 2] for table in tables)
    assert not [*(tmp_path / "out").rglob("*.part")]


def test_what_is_done_is_not_done_again_and_what_is_missing_is(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    _run(source, output)
    done = {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")}
    (output / "part0.parquet").unlink()
    lines = (output / JOURNAL).read_text().splitlines(keepends=True)
    (output / JOURNAL).write_text("".join(lines[:-1]) + lines[-1][:9])  # killed while it wrote the last line
    assert set(_run(source, output).values()) == {None}
    again = [path for path, time in done.items() if path.stat().st_mtime_ns != time]
    assert {path.name for path in again} == {"part0.parquet", "part2.parquet"}
    assert len((output / JOURNAL).read_text().splitlines()) == 1 + 4 + 2


def test_a_file_that_cannot_be_read_is_withheld_and_the_rest_go_on(source: Path, tmp_path: Path) -> None:
    (source / "part2.parquet").write_bytes(b"PAR1 secret@example.com")
    parquet.write_table(pa.table({"other": [1]}), source / "part4.parquet")
    errors = _run(source, tmp_path / "out")
    assert sorted(name for name, error in errors.items() if error) == ["part2.parquet", "part4.parquet"]
    assert errors["part4.parquet"] == "its columns are not those of the first file"
    assert "secret" not in str(errors)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.parquet")) == [
        "part0.parquet", "part1.parquet", "part3.parquet",
    ]  # fmt: skip


def test_a_folder_that_another_run_began_is_refused(source: Path, tmp_path: Path) -> None:
    _run(source, tmp_path / "out")
    work = plan(source, tmp_path / "out", REPLACE, scope_key=None, types=None)
    with pytest.raises(InputError, match=r"was begun with another policy, key, types or table: choose another folder$"):
        list(masked_files(work, engine="local"))
    with pytest.raises(InputError, match=r"expected an empty folder, or one that an earlier run began$"):
        list(masked_files(plan(source, source, REPLACE, scope_key=None, types=None), engine="local"))
    with pytest.raises(InputError, match=r"expected a folder of \.parquet files$"):
        plan(tmp_path / "none", tmp_path, REPLACE, scope_key=None, types=None)


def test_the_work_shows_no_key(source: Path, tmp_path: Path) -> None:
    work = plan(source, tmp_path / "out", PSEUDONYMS, scope_key=KEY, types=None)
    assert repr(KEY) not in repr(work)
    assert KEY.hex() not in work.fingerprint
    assert mask_file(work, "none.parquet").error == "it could not be masked (FileNotFoundError)"


def test_the_command_masks_a_folder_and_exits_with_3_where_a_file_was_withheld(source: Path, tmp_path: Path) -> None:
    done = mibao("mask", "in", "-o", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "masked by replace: 4 files, 8 rows" in done.stderr
    (source / "0.parquet").write_bytes(b"no")
    (source / "readme.txt").write_text("x")
    done = mibao("mask", "in", "-o", "out2", folder=tmp_path)
    assert done.returncode == 2  # the first file says what the columns hold
    (source / "0.parquet").rename(source / "z.parquet")
    done = mibao("mask", "in", "-o", "out2", folder=tmp_path)
    assert done.returncode == 3
    assert "z.parquet withheld: " in done.stderr
    assert "left out: 1 files that are not .parquet" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in"], "error: in: expected -o FOLDER, where the masked files go\n"),
        (["in", "-o", "out", "--engine", "spark"], "error: --engine: expected one of local, ray, got spark\n"),
        (["in", "-o", "out", "--vault", "v"], "error: --vault: a folder's files share no vault; "),
        (["in", "-o", "out", "--policy", "pipl"], "error: policy pipl: expected --key FILE, so that all files and a "),
    ],
)
def test_wrong_use_of_a_folder_is_refused(source: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = mibao("mask", *arguments, folder=tmp_path)
    assert (done.returncode, done.stderr.startswith(message)) == (2, True), done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_cluster_makes_what_one_process_makes(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    assert _run(source, tmp_path / "here") == _run(source, tmp_path / "there", engine="ray")
    for name in sorted(path.relative_to(source) for path in source.rglob("*.parquet")):
        assert parquet.read_table(tmp_path / "here" / name).equals(parquet.read_table(tmp_path / "there" / name))


def test_names_are_left_out_where_asked_and_a_machine_that_lacks_their_models_withholds_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    note = ["we met Maria Jones there, m@example.com"] * 3
    parquet.write_table(pa.table({"note": note}), tmp_path / "in/part.parquet")
    done = mibao("mask", "in", "-o", "rules", "--rules-only", folder=tmp_path)
    assert "--rules-only leaves out the models of names" in done.stderr
    masked = parquet.read_table(tmp_path / "rules/part.parquet")["note"][0].as_py()
    assert masked == "we met Maria Jones there, <EMAIL_ADDRESS>"
    work = plan(tmp_path / "in", tmp_path / "out", REPLACE, scope_key=None, types=None)
    monkeypatch.setattr("mibao.deid.files_folder.names_are_missing", lambda: "pip install")
    (withheld,) = masked_files(work, engine="local")
    assert withheld.error == "expected the models of names here too: pip install"
    assert not (tmp_path / "out/part.parquet").exists()
