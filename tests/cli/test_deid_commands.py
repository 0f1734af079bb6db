import json
import stat
import subprocess
import sys
from csv import reader, writer
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import csv, parquet

from command_line import mibao
from mibao.deid import detect
from mibao.deid.custom import parse_types
from mibao.deid.kinds import kinds
from mibao.deid.names_model import NamesModel

NOTE = "患者林晓雨，电话13800138000。\nPatient: Lin Xiaoyu, phone +86 138 0013 8000, card 4111 1111 1111 1111.\n"


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "note.txt"
    path.write_text(NOTE, encoding="utf-8")
    return path


def test_a_note_is_masked_and_restored_exactly_through_a_vault(note: Path, tmp_path: Path) -> None:
    done = mibao("mask", note, "--vault", "v", "-o", "masked.txt", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    masked = (tmp_path / "masked.txt").read_text(encoding="utf-8")
    assert not [value for value in ("林晓雨", "138", "Xiaoyu", "4111") if value in masked]
    assert stat.S_IMODE((tmp_path / "v.key").stat().st_mode) == 0o600
    assert mibao("unmask", "masked.txt", "--vault", "v", "-o", "back.txt", folder=tmp_path).returncode == 0
    assert (tmp_path / "back.txt").read_bytes() == note.read_bytes()
    again = mibao("mask", note, "--vault", "v", folder=tmp_path)
    assert again.stdout == masked
    assert mibao("unmask", "masked.txt", "--vault", "v", "--scope", "other", folder=tmp_path).returncode == 4


def test_values_with_quotes_and_line_ends_come_back_as_values_of_json_lines_and_csv(tmp_path: Path) -> None:
    address = "742 Evergreen Terrace\nSpringfield, IL 62704"
    key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----"
    rows = [{"text": f'She said "write to {address}"', "id": 7}, {"text": f"{key}\r\n\u2028😀"}, {"text": "<PERSON_1>"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert mibao("mask", "a.jsonl", "--vault", "v", "-o", "b.jsonl", folder=tmp_path).returncode == 0
    assert "Evergreen" not in (tmp_path / "b.jsonl").read_text(encoding="utf-8")
    assert mibao("unmask", "b.jsonl", "--vault", "v", "-o", "c.jsonl", folder=tmp_path).returncode == 0
    assert [json.loads(line) for line in (tmp_path / "c.jsonl").read_bytes().splitlines()] == rows
    table = [["name", "address"], ["Dr. Sofia Rossi", address], ['the "old" one', key]]
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer(file).writerows(table)
    assert mibao("mask", "a.csv", "--vault", "v", "-o", "b.csv", folder=tmp_path).returncode == 0
    assert "Evergreen" not in (tmp_path / "b.csv").read_text(encoding="utf-8")
    assert mibao("unmask", "b.csv", "--vault", "v", "-o", "c.csv", folder=tmp_path).returncode == 0
    with (tmp_path / "c.csv").open(encoding="utf-8", newline="") as file:
        assert list(reader(file)) == table


def test_without_a_policy_each_finding_becomes_the_name_of_its_type(note: Path, tmp_path: Path) -> None:
    done = mibao("mask", note, "--explain", folder=tmp_path)
    assert done.stdout == (
        "患者<PERSON>，电话<PHONE_NUMBER>。\nPatient: <PERSON>, phone <PHONE_NUMBER>, card <CREDIT_CARD>.\n"
    )
    assert "2-5\tPERSON\t0.89\tchanged\tmodel:zh-names-1" in done.stderr
    assert "masked by replace: " in done.stderr
    assert "5 findings: PERSON 2, PHONE_NUMBER 2, CREDIT_CARD 1" in done.stderr
    assert "13800138000" not in done.stderr


def test_a_policy_by_name_or_file_says_how(note: Path, tmp_path: Path) -> None:
    done = mibao("mask", note, "--policy", "gbt-35273", folder=tmp_path)
    assert "138****8000" in done.stdout
    assert "**** **** **** 1111" in done.stdout
    (tmp_path / "own.toml").write_text('name = "own"\n[otherwise]\nhow = "redact"\n', encoding="utf-8")
    assert mibao("mask", note, "--policy", "own.toml", folder=tmp_path).stdout.startswith("患者，电话。\n")


def test_detect_reports_places_and_never_values(note: Path, tmp_path: Path) -> None:
    done = mibao("detect", note, folder=tmp_path)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["start", "end", "type", "score", "why"]
    assert [(NOTE[int(start) : int(end)], kind) for start, end, kind, *_ in lines[1:]] == [
        ("林晓雨", "PERSON"), ("13800138000", "PHONE_NUMBER"), ("Lin Xiaoyu", "PERSON"),
        ("+86 138 0013 8000", "PHONE_NUMBER"), ("4111 1111 1111 1111", "CREDIT_CARD"),
    ]  # fmt: skip


_RECORDS = st.one_of(
    st.builds(lambda text: json.dumps({"id": 1, "text": text}).encode(), st.text(max_size=30)),
    st.builds(lambda text: json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "surrogatepass"),
              st.text(st.characters(codec=None), max_size=30)),
    st.sampled_from([b"", b" ", b"[]", b"3", b"{", b'{"text": null}', b'{"txt": "a"}', b"\xff\xfe", b"\0", b"[" * 3000,
                     b'{"text": "\\ud800 13800138000"}', b'{"text": "x\\u0000 a@b.co"}']),
)  # fmt: skip


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(records=st.lists(_RECORDS, max_size=6))
def test_every_line_of_records_has_its_line_of_findings_in_order(
    records: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    records = [record.replace(b"\n", b" ").replace(b"\r", b" ") for record in records]
    folder = tmp_path_factory.mktemp("jsonl")
    (folder / "in.jsonl").write_bytes(b"".join(record + b"\n" for record in records))
    done = mibao("detect", "--jsonl", "in.jsonl", "-o", "out.jsonl", folder=folder)
    answers = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(answers) == len(records)
    for record, answer in zip(records, answers, strict=True):
        try:
            text = json.loads(record.decode())["text"]
            assert isinstance(text, str)
        except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
            assert answer["findings"] == []
            assert answer["error"]
            continue
        assert set(answer) == {"findings"}
        assert all(0 <= each["start"] < each["end"] <= len(text) for each in answer["findings"])
    assert done.returncode == (3 if any("error" in answer for answer in answers) else 0)


def test_offsets_count_characters_and_each_finding_has_its_five_fields(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "😀电话１３８００１３８０００"}\n', encoding="utf-8")
    done = mibao("detect", "--jsonl", "in.jsonl", folder=tmp_path)
    assert json.loads(done.stdout) == {
        "findings": [{"start": 3, "end": 14, "type": "PHONE_NUMBER", "score": 0.97, "why": "Chinese mobile number"}]
    }
    assert "checked: 1 records" in done.stderr


def test_withheld_records_are_listed_and_the_exit_code_is_3(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a@b.co"}\nnot json\n{"text": 7}\n', encoding="utf-8")
    done = mibao("detect", "--jsonl", "in.jsonl", folder=tmp_path)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer.get("error") for answer in answers] == [
        None, "expected a JSON object in the line", 'expected a string in "text", got int',
    ]  # fmt: skip
    assert done.returncode == 3
    assert "withheld, not checked: 2 records (lines 2, 3)" in done.stderr


def test_a_detector_that_fails_withholds_its_record_and_the_rest_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: NamesModel, text: str) -> tuple[()]:
        if "boom" in text:
            raise ZeroDivisionError("secret@example.com")
        return ()

    monkeypatch.setattr(NamesModel, "pieces", broken)
    (tmp_path / "in.jsonl").write_text('{"text": "boom"}\n7\n{"text": "calm a@b.co"}\n', encoding="utf-8")
    done = mibao("detect", "--jsonl", "in.jsonl", folder=tmp_path)
    assert done.returncode == 3
    failed, refused, calm = (json.loads(line) for line in done.stdout.splitlines())
    assert failed == {"findings": [], "error": "the detector failed (ZeroDivisionError)"}
    assert refused == {"findings": [], "error": "expected a JSON object, got int"}
    assert [each["type"] for each in calm["findings"]] == ["EMAIL_ADDRESS"]
    assert "secret" not in done.stdout + done.stderr
    assert "withheld, not checked: 2 records (lines 1, 2)" in done.stderr


def test_records_searched_together_answer_as_each_by_itself(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        '[[type]]\nname = "BADGE"\npattern = "HB-[0-9]{6}"\n\n[[type]]\nname = "SHIP"\ndeny = ["Argo"]\n',
        encoding="utf-8",
    )
    texts = [f"HB-{100_000 + at}, 患者王建国" if at % 2 else f"Maria Jones of the Argo, u{at}@example.com"
             for at in range(1100)]  # fmt: skip
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": each}) + "\n" for each in texts), encoding="utf-8")
    done = mibao("detect", "--jsonl", "in.jsonl", "--types", "own.toml", folder=tmp_path)
    answers = [json.loads(line)["findings"] for line in done.stdout.splitlines()]
    assert len(answers) == len(texts)
    own = parse_types((tmp_path / "own.toml").read_text(encoding="utf-8"), source="own.toml")
    for at in (0, 1, 498, 499, 500, 501, 1099):
        alone = [(found.start, found.end, found.type.value) for found in detect(texts[at], types=own)]
        assert [(each["start"], each["end"], each["type"]) for each in answers[at]] == alone
        assert {kind for *_, kind in alone} >= ({"BADGE", "PERSON"} if at % 2 else {"SHIP", "EMAIL_ADDRESS"})


def test_rules_alone_miss_the_name_and_the_summary_says_so(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("Maria Jones, maria@example.com\n", encoding="utf-8")
    (tmp_path / "in.jsonl").write_text('{"text": "Maria Jones, maria@example.com"}\n', encoding="utf-8")
    said = "names are found after cue words only: --rules-only leaves out the models of names"
    for arguments in (
        ["mask", "in.txt"],
        ["detect", "in.txt"],
        ["detect", "--jsonl", "in.jsonl"],
        ["mask", "in.jsonl"],
    ):
        full = mibao(*arguments, folder=tmp_path)
        assert "PERSON" in full.stdout
        assert "names are found" not in full.stderr
        rules = mibao(*arguments, "--rules-only", folder=tmp_path)
        assert "PERSON" not in rules.stdout
        assert "EMAIL_ADDRESS" in rules.stdout
        assert said in rules.stderr.splitlines()


def test_without_the_models_the_summary_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mibao.deid.detection.names_are_missing", lambda: "pip install 'mibao[deid]'")
    (tmp_path / "in.txt").write_text("Maria Jones\n", encoding="utf-8")
    for command in ("mask", "detect"):
        assert "pip install 'mibao[deid]'" in mibao(command, "in.txt", folder=tmp_path).stderr.splitlines()


def test_standard_input_is_read_and_standard_output_written(note: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mibao", "mask"], input=NOTE.encode(), capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0
    assert "<CREDIT_CARD>" in done.stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["mask", "x.pdf"], 2, "error: x.pdf: PDF: it cannot be read ("),
        (["mask", "none.txt"], 2, "error: none.txt: expected a file, got nothing there\n"),
        (["mask", "bytes.txt"], 2, "error: bytes.txt: expected UTF-8 text, got other bytes near byte 4\n"),
        (["mask", "zero.txt"], 2, "error: zero.txt: expected text, got something with zero bytes in it\n"),
        (["mask", "note.txt", "-o", "note.txt"], 2, "error: note.txt exists already and is not overwritten: "),
        (["mask", "note.txt", "--policy", "nope"], 2, "error: policy: expected a file or one of hipaa-safe-harbor, "),
        (["mask", "note.txt", "--policy", "clinical", "--vault", "v"], 2, "error: policy clinical changes ADDRESS, "),
        (["unmask", "note.txt"], 2, "error: unmask: expected --vault V, the vault that `mibao mask --vault V` wrote\n"),
        (["unmask", "note.txt", "--vault", "v"], 2, "error: v: expected a vault, got nothing there\n"),
        (["mask", "note.txt", "--key", "note.txt"], 2, "error: note.txt: expected 64 hexadecimal digits, the key\n"),
        (["deid", "evaluate", "note.txt"], 2, "error: note.txt, line 1: expected {"),
    ],
)
def test_wrong_use_ends_in_one_line_and_leaves_nothing(
    arguments: list[str], code: int, message: str, note: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "bytes.txt").write_bytes(b"abc\xff")
    (tmp_path / "zero.txt").write_bytes(b"abc\0")
    before = sorted(path.name for path in tmp_path.iterdir())
    done = mibao(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_types_and_policies_are_listed(tmp_path: Path) -> None:
    shown = mibao("deid", "types", folder=tmp_path).stdout
    assert all(kind.type.value in shown for kind in kinds())
    rows = [json.loads(line) for line in mibao("deid", "types", "--json", folder=tmp_path).stdout.splitlines()]
    assert len(rows) == len(kinds())
    assert "hipaa-safe-harbor" in mibao("deid", "policies", folder=tmp_path).stdout


def test_an_evaluation_prints_precision_recall_f1_and_f2_by_type(tmp_path: Path) -> None:
    gold = [
        {"text": "Dr. Chen, a@b.co", "spans": [{"start": 4, "end": 8, "type": "PERSON"}]},
        {"text": "ask qwxz, 13800138000", "spans": [{"start": 4, "end": 8, "type": "PERSON"}]},
    ]
    (tmp_path / "gold.jsonl").write_text("\n".join(map(json.dumps, gold)), encoding="utf-8")
    scores = json.loads(mibao("deid", "evaluate", "gold.jsonl", "--json", folder=tmp_path).stdout)
    assert scores["exact"]["PERSON"]["precision"] == 1
    assert scores["overlap"]["PERSON"]["recall"] == 0.5
    assert "PERSON" in mibao("deid", "evaluate", "gold.jsonl", folder=tmp_path).stdout


def test_an_evaluation_takes_the_users_own_types_and_the_rules_alone(tmp_path: Path) -> None:
    gold = {
        "text": "Maria Jones, HB-123456",
        "spans": [{"start": 0, "end": 11, "type": "PERSON"}, {"start": 13, "end": 22, "type": "BADGE"}],
    }
    (tmp_path / "gold.jsonl").write_text(json.dumps(gold), encoding="utf-8")
    (tmp_path / "own.toml").write_text('[[type]]\nname = "BADGE"\npattern = "HB-[0-9]{6}"\n', encoding="utf-8")
    done = mibao("deid", "evaluate", "gold.jsonl", "--types", "own.toml", "--json", folder=tmp_path)
    exact = json.loads(done.stdout)["exact"]
    assert (exact["BADGE"]["recall"], exact["PERSON"]["recall"]) == (1, 1)
    rules = mibao("deid", "evaluate", "gold.jsonl", "--rules-only", "--only", "PERSON", "--json", folder=tmp_path)
    assert {name: row["recall"] for name, row in json.loads(rules.stdout)["exact"].items()} == {"all": 0, "PERSON": 0}
    assert "--rules-only leaves out" in rules.stderr


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_a_table_is_masked_column_by_column(kind: str, tmp_path: Path) -> None:
    rows = 9_000
    table = pa.table(
        {
            "first_name": ["Ann", "Lin"] * (rows // 2),
            "contact": [f"138{number:08d}" for number in range(rows)],
            "note": ["seen by Dr. Chen", "写信到 lin@example.com"] * (rows // 2),
            "amount": list(range(rows)),
        }
    )
    write = {".csv": csv.write_csv, ".parquet": parquet.write_table}[kind]
    write(table, tmp_path / f"in{kind}")
    (tmp_path / "p.toml").write_text('name = "p"\n[columns.amount]\nhow = "keep"\n', encoding="utf-8")
    done = mibao("mask", f"in{kind}", "--policy", "p.toml", "-o", f"out{kind}", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    read = {".csv": csv.read_csv, ".parquet": parquet.read_table}[kind]
    after = read(tmp_path / f"out{kind}")
    assert after.num_rows == rows
    assert set(after["first_name"].to_pylist()) == {"<PERSON>"}
    assert set(after["contact"].to_pylist()) == {"<PHONE_NUMBER>"}
    assert set(after["note"].to_pylist()) == {"seen by Dr. <PERSON>", "写信到 <EMAIL_ADDRESS>"}
    assert after["amount"].to_pylist() == list(range(rows))
    assert "column first_name: PERSON (what stands in it" in done.stderr
    assert "column contact: PHONE_NUMBER (what stands in it, 100% of the sample)" in done.stderr


def test_json_lines_are_masked_in_every_string_and_a_bad_line_is_left_out_and_listed(tmp_path: Path) -> None:
    records = ['{"user": {"email": "a@b.co"}, "turns": ["Dr. Chen", 5, null]}', "oops", '{"n": 13800138000, "t": true}']
    (tmp_path / "in.jsonl").write_text("\n".join(records) + "\n", encoding="utf-8")
    done = mibao("mask", "in.jsonl", "-o", "out.jsonl", folder=tmp_path)
    assert done.returncode == 3
    assert "line 2 withheld: expected a JSON object in the line" in done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == [
        {"user": {"email": "<EMAIL_ADDRESS>"}, "turns": ["Dr. <PERSON>", 5, None]}, {"n": "<PHONE_NUMBER>", "t": True},
    ]  # fmt: skip


def test_a_number_column_without_a_type_loses_only_the_numbers_that_are_somebodys(tmp_path: Path) -> None:
    values = [*range(100, 900), 13800138000]
    parquet.write_table(pa.table({"x": pa.array(values, pa.int64())}), tmp_path / "in.parquet")
    assert mibao("mask", "in.parquet", "-o", "out.parquet", folder=tmp_path).returncode == 0
    assert parquet.read_table(tmp_path / "out.parquet")["x"].to_pylist() == [*range(100, 900), None]


def test_the_risk_of_a_table_is_measured(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("age,sex,illness\n30,f,flu\n30,f,gout\n40,m,flu\n40,m,flu\n", encoding="utf-8")
    done = mibao("deid", "risk", "t.csv", "--quasi", "age,sex", "--sensitive", "illness", "--json", folder=tmp_path)
    assert json.loads(done.stdout) == {
        "rows": 4, "k": 2, "l_distinct": 1, "l_entropy": 1.0, "t": 0.25, "prosecutor": 0.5,
        "alone_in_their_class": 0.0, "marketer": 0.5,
    }  # fmt: skip
    assert "k-anonymity" in mibao("deid", "risk", "t.csv", "--quasi", "age", folder=tmp_path).stdout
    refused = mibao("deid", "risk", "t.csv", "--quasi", "height", folder=tmp_path)
    assert refused.stderr == "error: t.csv: no column height; there are age, sex, illness\n"


def test_the_page_of_types_is_the_table_itself(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/deid-types.md").read_text(encoding="utf-8")
    assert mibao("deid", "types", "--markdown", folder=tmp_path).stdout in page
