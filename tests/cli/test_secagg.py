import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from command_line import mibao
from mibao.cli.secagg_picture import curves

SMALL = ("--clients", 5, "--params", "1e2", "--committee", 5, "--corrupt", 1, "--packing", 2)


@pytest.mark.parametrize("scheme", ["rlwe", "pairwise", "encrypted"])
def test_simulate_shows_who_sent_what_and_that_the_sum_is_exact(scheme: str, tmp_path: Path) -> None:
    done = mibao("secagg", "simulate", *SMALL, "--dropout", 0.2, "--scheme", scheme, folder=tmp_path)
    assert done.returncode == 0
    assert f"{scheme}: 5 clients, 100 numbers of 16 bits, 1 dropping out" in done.stdout
    assert "sum of 4 of 5: exact, bit for bit" in done.stdout
    assert "client, all together: " in done.stdout


def test_simulate_prints_json(tmp_path: Path) -> None:
    found = json.loads(mibao("secagg", "simulate", *SMALL, "--json", folder=tmp_path).stdout)
    assert (found["exact"], found["survivors"], found["params"]) == (True, 5, 100)
    assert {line["who"] for line in found["lines"]} == {"client", "server", "member"}


def test_simulate_draws_a_picture_and_overwrites_nothing(tmp_path: Path) -> None:
    asked = ("secagg", "simulate", *SMALL, "--plot", "costs.svg")
    assert "costs.svg: written" in mibao(*asked, folder=tmp_path).stdout
    picture = ElementTree.parse(tmp_path / "costs.svg").getroot()  # noqa: S314 - our own file
    assert sum("rect" in element.tag for element in picture) > 8
    again = mibao(*asked, folder=tmp_path)
    assert again.returncode == 2
    assert "exists already and is not overwritten" in again.stderr


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--params", "1.5"), "--params: expected a whole number such as 100000 or 1e6, got '1.5'"),
        (("--params", "many"), "--params: expected a whole number"),
        (("--scheme", "magic"), "--scheme: expected one of rlwe, pairwise, encrypted, got 'magic'"),
        (("--trust", "blind"), "--trust: expected one of honest-server, malicious-server, got 'blind'"),
        (("--dropout", "1"), "--dropout: expected 0 to 1, got 1"),
        (("--dropout", "0.9"), "2 clients left"),
        (("--committee", "3"), "members of the committee of 4 to 64, got 3"),
    ],
)
def test_simulate_refuses_what_cannot_be(words: tuple[str, str], error: str, tmp_path: Path) -> None:
    done = mibao("secagg", "simulate", *SMALL, *words, folder=tmp_path)
    assert done.returncode == 2
    assert error in done.stderr


def test_curves_share_their_axes_and_a_tenfold_is_as_long_in_either_direction_of_growth() -> None:
    content = curves("growth", {"flat": {"a": {10: 1.0, 100: 1.0}}, "linear": {"b": {10: 2.0, 100: 20.0, 1000: 200.0}}})
    picture = ElementTree.fromstring(content)  # noqa: S314 - our own text
    space = "{http://www.w3.org/2000/svg}"
    flat, linear = (
        [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
        for line in picture.iter(f"{space}polyline")
    )
    assert flat[0][1] == flat[1][1]
    assert linear[0][1] - linear[1][1] == pytest.approx(linear[1][1] - linear[2][1], abs=0.2) != 0.0
    assert {text.text for text in picture.iter(f"{space}text")} >= {"growth", "flat", "linear", "a", "b", "1,000"}
