import json
import random
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv

from command_line import mibao
from mibao.deid import anonymity

OWN = """
[[type]]
name = "BADGE"
pattern = 'HB-[0-9]{4}'
deny = ["Badge Zero"]
replacement = "[badge]"
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    draw = random.Random(2)  # noqa: S311
    rows = 300
    columns = {
        "age": [draw.randint(18, 89) for _ in range(rows)],
        "zip": [draw.choice(["02138", "02139", "02141", "94107", "94110"]) for _ in range(rows)],
        "job": [draw.choice(["nurse", "doctor", "smith", "baker"]) for _ in range(rows)],
        "illness": [draw.choice(["flu", "gout", "asthma"]) for _ in range(rows)],
        "weight": [draw.randint(50, 99) for _ in range(rows)],
    }
    csv.write_csv(pa.table(columns), tmp_path / "t.csv")
    (tmp_path / "jobs.csv").write_text("nurse,health\ndoctor,health\nsmith,craft\nbaker,craft\n", encoding="utf-8")
    return tmp_path / "t.csv"


def test_the_table_meets_the_demand_and_what_was_lost_is_printed(table: Path, tmp_path: Path) -> None:
    arguments = ["deid", "anonymise", "t.csv", "--quasi", "age,zip,job", "--hierarchy", "job=jobs.csv"]
    demand = ["--sensitive", "illness", "--k", "5", "--l", "2", "--t", "0.5", "--suppress", "0.1"]
    done = mibao(*arguments, *demand, "-o", "out.csv", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    text = csv.ConvertOptions(column_types={"zip": pa.string(), "age": pa.string()})
    out = csv.read_csv(tmp_path / "out.csv", convert_options=text).to_pydict()
    quasi = ["age", "zip", "job"]
    assert anonymity.k_anonymity(out, quasi) == summary["k"] >= 5
    assert anonymity.l_diversity(out, quasi, "illness") == summary["l"] >= 2
    assert anonymity.t_closeness(out, quasi, "illness") == pytest.approx(summary["t"])
    assert summary["t"] <= 0.5
    assert len(out["age"]) == 300 - summary["left_out"] >= 270
    assert summary["best"]
    assert 0 < summary["certainty"] < 1
    shown = mibao(*arguments, *demand, "-o", "out2.csv", folder=tmp_path)
    assert "reached: k = " in shown.stdout
    assert "certainty penalty" in shown.stdout
    assert "column weight: stays as it is" in shown.stderr


def test_the_report_is_written_beside_the_measures(table: Path, tmp_path: Path) -> None:
    done = mibao("deid", "risk", "t.csv", "--quasi", "age,zip", "--sensitive", "illness", "--population", "t.csv",
                 "--html", "r.html", "--json", folder=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["journalist"] == found["prosecutor"]
    assert "Risk of re-identification" in (tmp_path / "r.html").read_text(encoding="utf-8")
    mibao("deid", "risk", "t.csv", "--quasi", "age", "--html", "zh.html", "--zh", folder=tmp_path)
    assert "重识别风险报告" in (tmp_path / "zh.html").read_text(encoding="utf-8")
    again = mibao("deid", "risk", "t.csv", "--quasi", "age", "--html", "zh.html", folder=tmp_path)
    assert (again.returncode, again.stderr.startswith("error: zh.html exists already")) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quasi", "height"], "error: t.csv: no column height; there are age, zip, job, illness, weight\n"),
        (["--quasi", "age", "--k", "400"], "error: anonymise: not even the whole table as one class meets k=400, "),
        (["--quasi", "age", "--l", "2"], "error: anonymise: expected a sensitive column, which l and t are about\n"),
        (["--quasi", "age", "--hierarchy", "job=jobs.csv"], "error: --hierarchy job=jobs.csv: expected COLUMN=FILE"),
        (["--quasi", "job", "--hierarchy", "job=none.csv"], "error: none.csv: expected a file of at most 64 MiB\n"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(
    arguments: list[str], message: str, table: Path, tmp_path: Path
) -> None:
    keep = ["--keep", "zip,job,illness,weight"]
    done = mibao("deid", "anonymise", "t.csv", *arguments, *keep, "-o", "out.csv", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines(keepends=True)[-1].startswith(message)
    assert not (tmp_path / "out.csv").exists()


def test_a_column_of_personal_data_that_would_stay_is_refused_unless_it_is_named(tmp_path: Path) -> None:
    csv.write_csv(pa.table({"name": ["Ann", "Bob"] * 5, "age": [30, 40] * 5}), tmp_path / "t.csv")
    done = mibao("deid", "anonymise", "t.csv", "--quasi", "age", "--k", "2", "-o", "o.csv", folder=tmp_path)
    assert done.returncode == 2
    assert "column name holds PERSON (" in done.stderr
    assert ") and would stay as it is: mask the table first" in done.stderr
    keep = ["--keep", "name", "-o", "o.csv"]
    assert mibao("deid", "anonymise", "t.csv", "--quasi", "age", "--k", "2", *keep, folder=tmp_path).returncode == 0


def test_types_of_ones_own_are_found_and_changed_by_every_command(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN, encoding="utf-8")
    (tmp_path / "a.txt").write_text("HB-1234, badge zero, a@b.co", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"text": "HB-1234"}\n', encoding="utf-8")
    (tmp_path / "a.csv").write_text("id,note\nHB-1234,saw HB-9999\n", encoding="utf-8")
    own = ["--types", "own.toml"]
    assert mibao("mask", "a.txt", *own, folder=tmp_path).stdout == "[badge], [badge], <EMAIL_ADDRESS>"
    (answer,) = mibao("detect", "--jsonl", "a.jsonl", *own, folder=tmp_path).stdout.splitlines()
    assert [found["type"] for found in json.loads(answer)["findings"]] == ["BADGE"]
    assert "\tBADGE\t" in mibao("detect", "a.txt", *own, folder=tmp_path).stdout
    assert mibao("mask", "a.csv", *own, "-o", "out.csv", folder=tmp_path).returncode == 0
    assert csv.read_csv(tmp_path / "out.csv").to_pylist() == [{"id": "[badge]", "note": "saw [badge]"}]
    refused = mibao("mask", "a.txt", *own, "--vault", "v", folder=tmp_path)
    assert "changes BADGE in a way that no vault restores" in refused.stderr
    (tmp_path / "own.toml").write_text(OWN.replace("replacement", "replacment"), encoding="utf-8")
    wrong = mibao("mask", "a.txt", *own, folder=tmp_path)
    assert wrong.stderr == "error: own.toml: type BADGE: Object contains unknown field `replacment`\n"
    assert mibao("mask", "a.txt", "--types", "none.toml", folder=tmp_path).returncode == 2
