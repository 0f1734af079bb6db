"""What a peer's answer to an attack is called: a crash is no refusal, and an acceptance without effect no forgery."""

import pytest
from benchmarks.peers.outcomes import outcome, over_flips

from benchmarks import attacks


class OwnError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, "ACCEPTED"),
        (OwnError("tag"), "refused"),
        (TypeError("x"), "failed: TypeError"),
        (MemoryError(), "failed: MemoryError"),
        (SystemExit(1), "failed: SystemExit"),
    ],
)
def test_only_an_error_of_the_peers_own_is_a_refusal(error, expected):
    def load():
        if error is not None:
            raise error

    assert outcome(load, own=(OwnError,)) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"kkkk", "refused"),
        (b"kvkc", "refused, failed otherwise at 1"),
        (b"iiwk", "ACCEPTED at 3 of 4 bytes, with other tensors at 1"),
        (b"icwk", "ACCEPTED at 2 of 4 bytes, with other tensors at 1, failed otherwise at 1"),
    ],
)
def test_flips_are_counted_by_what_came_of_them(data, expected):
    """A format of one byte a field: ``k`` is checked, ``i`` is ignored, ``w`` a weight, ``c`` crashes, ``v`` checks."""

    def load(altered):
        (at,) = [at for at, byte in enumerate(altered) if byte != data[at]]
        match chr(data[at]):
            case "k" | "v":
                raise OwnError
            case "c":
                raise KeyError
        return {"weight": bytes(each for each, was in zip(altered, data, strict=True) if was == ord("w"))}

    same = {"weight": b"w" * data.count(b"w")}
    assert over_flips(data, range(len(data)), load, own=(OwnError,), same=lambda found: found == same) == expected


def test_every_row_of_the_table_has_tests_of_ours_that_exist():
    text = "".join((attacks.ROOT / path).read_text(encoding="utf-8") for path in attacks.TESTS)
    for _, tests in attacks.ATTACKS.values():
        assert tests
        for test in tests:
            assert f"def test_{test}(" in text


def test_a_peer_that_does_not_run_is_a_column_of_dashes():
    mine = dict.fromkeys(attacks.ATTACKS, "refused")
    table = attacks.lines(mine, {name: {} for name in attacks.PEERS})
    assert len(table) == len(attacks.ATTACKS) + 2
    assert all(line.endswith("| refused | - | - |") for line in table[2:])
