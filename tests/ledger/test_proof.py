from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger_samples import alter, events, signer, write
from mibao import ledger
from mibao.errors import IntegrityError, KeyMismatch, MibaoError
from mibao.ledger import proof as proofs


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return ledger.prove(write(tmp_path_factory.mktemp("proof") / "a.ledger", count=21), 13)


def test_a_proof_is_checked_without_the_ledger(text: str) -> None:
    proven = ledger.verify_proof(text, signer=signer().public)
    assert (proven.index, proven.entry.event, proven.checkpoint.size) == (13, events(21)[13], 21)


def test_the_text_is_what_the_format_says(text: str) -> None:
    head, _, note = text.partition("\n\n")
    lines = head.split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert [line.partition(" ")[0] for line in lines[1:3]] == ["extra", "index"]
    assert len(lines[3:]) == 5
    assert note.startswith("mibao.test/hospital-a\n21\n")
    assert proofs.encode(proofs.decode(text)) == text


@given(at=st.integers(0, 1 << 30), change=st.integers(1, 0x7F))
def test_a_proof_with_any_character_changed_is_refused(text: str, at: int, change: int) -> None:
    place = at % len(text)
    changed = text[:place] + chr(ord(text[place]) ^ change) + text[place + 1 :]
    with pytest.raises(MibaoError):
        ledger.verify_proof(changed, signer=signer().public)


def test_a_proof_under_another_key_is_refused(text: str) -> None:
    with pytest.raises(KeyMismatch, match="not by the given key"):
        ledger.verify_proof(text, signer=signer(2).public)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("tlog-proof@v1", "tlog-proof@v2", "expected the lines"),
        ("extra ", "more ", "expected the lines"),
        ("index 13", "index 013", "expected an index"),
        ("index 13", "index 12", "does not lead to the root"),
        ("index 13", "index 21", "the index lies outside the tree"),
        ("index 13\n", "index 13\nAAAA\n", "expected hashes of 32 bytes"),
        ("index 13\n", "index 13\n!\n", "not base64"),
        ("index 13\n", "index 13\n" + ("A" * 43 + "=\n") * 64, "at most 64 hashes"),
    ],
)
def test_a_proof_with_one_fault_is_refused(text: str, before: str, after: str, message: str) -> None:
    assert before in text
    with pytest.raises(IntegrityError, match=message):
        ledger.verify_proof(text.replace(before, after), signer=signer().public)


def test_a_proof_beyond_the_size_limit_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError, match="expected at most 131072 bytes"):
        ledger.verify_proof(text + " " * 131_072, signer=signer().public)


def test_the_entry_of_one_proof_in_another_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ledger", count=21)
    one, two = (proofs.decode(ledger.prove(path, index)) for index in (4, 5))
    mixed = proofs.Proof(index=one.index, data=two.data, hashes=one.hashes, note=one.note)
    with pytest.raises(IntegrityError, match="does not lead to the root"):
        ledger.verify_proof(proofs.encode(mixed), signer=signer().public)


def test_a_ledger_that_does_not_match_its_checkpoint_proves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ledger", count=21)
    alter(path, "DELETE FROM entries WHERE position = 20")
    with pytest.raises(IntegrityError, match="do not match its checkpoint"):
        ledger.prove(path, 3)
