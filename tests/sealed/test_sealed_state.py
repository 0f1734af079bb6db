"""What a reader remembers refuses an older model, a second one of the same version, and its own damage."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sealed_kit as kit
from counts import counts
from mibao import sealed
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.sealed import VersionState, opening, state
from mibao.sealed.source import MemorySource
from mibao.types import RandomId, Refusal

releases = st.builds(
    lambda version, hashed: state.Release(version=version, manifest_hash=hashed),
    st.integers(1, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
)
lines = st.tuples(st.binary(min_size=16, max_size=16).map(RandomId), st.text(min_size=1, max_size=8))
knowns = st.dictionaries(lines, releases, max_size=5)


def written(path: Path, version: int, **more) -> Path:
    path.write_bytes(kit.sealed_bytes(version=version, **more))
    return path


def manifest(**arguments):
    return opening.read_verified(MemorySource(kit.sealed_bytes(**arguments)), signer=kit.VENDOR.public).manifest


OPENS = {
    "open_sealed": lambda path, **more: sealed.open_sealed(path, path.with_suffix(".out"), **more),
    "open_sealed without output": lambda path, **more: sealed.open_sealed(path, None, **more),
    "open_bytes": sealed.open_bytes,
    "open_model": lambda path, **more: sealed.open_model(path, **more).close(),
}


@pytest.fixture(params=OPENS.values(), ids=OPENS)
def open_(request, tmp_path):
    def run(path: Path, *, keep: VersionState | None = None, identity=kit.ALICE, signer=kit.VENDOR.public) -> None:
        path.with_suffix(".out").unlink(missing_ok=True)
        request.param(path, identity=identity, signer=signer, state=keep or VersionState(tmp_path / "state"))

    return run


@given(knowns)
def test_what_is_kept_comes_back(known):
    assert state.decode(state.encode(known)) == known


@settings(max_examples=counts(short=200, long=2000), deadline=None)
@given(knowns, st.data())
def test_a_kept_state_that_was_altered_in_any_byte_is_refused(known, data):
    kept = bytearray(state.encode(known))
    kept[data.draw(st.integers(0, len(kept) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IntegrityError, match=r"^state: damaged"):
        state.decode(bytes(kept))


FROZEN = b"""{"format": 1, "checksum": "c", "models": [
{"signer": "01010101010101010101010101010101", "model_id": "acme/\\u6a21\\u578b", "version": 7, "manifest": "m"},
{"signer": "0101010101010101010101010101010f", "model_id": "a", "version": 9223372036854775807, "manifest": "m"}
]}
""".replace(b'"m"', b'"' + b"ab" * 32 + b'"').replace(
    b'"c"', b'"15f454825a1cb1791ef81c451fecf98ed7782ec893fc4fd34ae56e675a21b69e"'
)


def test_a_state_of_this_format_is_read_forever():
    assert state.decode(FROZEN) == {
        (RandomId(b"\1" * 16), "acme/模型"): state.Release(version=7, manifest_hash=b"\xab" * 32),
        (RandomId(b"\1" * 15 + b"\x0f"), "a"): state.Release(version=2**63 - 1, manifest_hash=b"\xab" * 32),
    }


@pytest.mark.parametrize(
    "kept",
    [b"", b"[]", b"null", b"{", b"\xff", b'{"models": 3}', b'{"models": [[]]}', b"[" * 5000, b" " * ((1 << 24) + 1)],
)
def test_a_file_that_is_no_state_is_refused(kept):
    with pytest.raises(IntegrityError, match=r"^state: damaged"):
        state.decode(kept)


def test_a_cut_or_extended_state_is_refused():
    kept = state.encode({(RandomId(b"s" * 16), "m"): state.Release(version=1, manifest_hash=bytes(32))})
    for wrong in (kept[:-1], kept + b"\n", kept.replace(b": 1,", b": 1.0,"), kept.replace(b": 1,", b": 1e999,")):
        with pytest.raises(IntegrityError, match=r"^state: damaged"):
            state.decode(wrong)


def test_too_many_models_for_a_state_are_refused(monkeypatch):
    monkeypatch.setattr(state, "MAX_STATE_BYTES", 100)
    with pytest.raises(InputError, match="expected at most 100 bytes"):
        state.encode({(RandomId(b"s" * 16), "m"): state.Release(version=1, manifest_hash=bytes(32))})


@given(st.lists(st.integers(1, 5), max_size=6))
def test_versions_that_were_let_through_never_fall(versions):
    known: state.Known = {}
    let_through = []
    for version in versions:
        now = MANIFESTS[version]
        try:
            state.check(known, now)
        except IntegrityError:
            continue
        known = state.advanced(known, now)
        let_through.append(version)
    assert let_through == sorted(let_through)


MANIFESTS = {version: manifest(version=version) for version in range(1, 6)}


def test_the_second_open_refuses_an_older_model(open_, tmp_path):
    older, newer = written(tmp_path / "2.mibao", 2), written(tmp_path / "3.mibao", 3)
    open_(older)
    open_(newer)
    open_(newer)
    with pytest.raises(IntegrityError, match=r"^version: .* older than one .* \(2, version 3 was\)$") as caught:
        open_(older)
    assert sealed.refusal(caught.value).reason is Refusal.OLDER_VERSION
    assert not older.with_suffix(".out").exists()


def test_another_model_of_the_same_version_is_equivocation(open_, tmp_path):
    first, second = written(tmp_path / "a.mibao", 3), written(tmp_path / "b.mibao", 3, file_id=b"J" * 16)
    open_(first)
    with pytest.raises(IntegrityError, match=r"^version: another model of this version .* signed two$") as caught:
        open_(second)
    assert sealed.refusal(caught.value).reason is Refusal.EQUIVOCATION
    assert not second.with_suffix(".out").exists()


def test_a_rewrapped_model_is_the_same_model(open_, tmp_path):
    path = written(tmp_path / "m.mibao", 3)
    open_(path)
    sealed.rewrap(path, identity=kit.ALICE, add=[kit.MALLORY.public])
    open_(path)


def test_other_models_and_other_signers_count_for_themselves(open_, tmp_path):
    open_(written(tmp_path / "a.mibao", 5))
    open_(written(tmp_path / "b.mibao", 1, model_id="acme/other"))
    open_(written(tmp_path / "c.mibao", 1, by=kit.RIVAL), signer=kit.RIVAL.public)


def test_a_first_open_is_refused_where_one_is_required(open_, tmp_path):
    path, keep = written(tmp_path / "m.mibao", 3), tmp_path / "state"
    with pytest.raises(IntegrityError, match=r"^state: no version of this model was opened before") as caught:
        open_(path, keep=VersionState(keep, require_known=True))
    assert sealed.refusal(caught.value).reason is Refusal.UNKNOWN_VERSION
    assert not keep.exists()
    open_(path, keep=VersionState(keep))
    open_(path, keep=VersionState(keep, require_known=True))


@pytest.mark.parametrize("kept", [b"", b"{}", b"garbage"])
def test_a_damaged_state_opens_nothing(open_, tmp_path, kept):
    path, keep = written(tmp_path / "m.mibao", 3), tmp_path / "state"
    keep.write_bytes(kept)
    with pytest.raises(IntegrityError, match=rf"^state: damaged, or not one of mibao's files: {keep}$"):
        open_(path)
    assert keep.read_bytes() == kept
    assert not path.with_suffix(".out").exists()


def test_a_state_that_cannot_be_read_or_written_opens_nothing(open_, tmp_path):
    path = written(tmp_path / "m.mibao", 3)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"^state: .*: Is a directory; keep it in another file"):
        open_(path, keep=VersionState(tmp_path / "folder"))
    with pytest.raises(InputError, match=r"^state: .*: Not a directory; keep it"):
        open_(path, keep=VersionState(path / "state"))
    with pytest.raises(InputError, match=r"^state: /proc/.*: No such file or directory; keep"):
        open_(path, keep=VersionState("/proc/none/state"))
    assert not path.with_suffix(".out").exists()


def test_a_model_that_fails_a_check_leaves_the_state_as_it_was(open_, tmp_path):
    keep = tmp_path / "state"
    genuine = written(tmp_path / "2.mibao", 2)
    open_(genuine)
    before = keep.read_bytes()
    forged = written(tmp_path / "9.mibao", 9, by=kit.RIVAL)
    foreign = written(tmp_path / "8.mibao", 8, to=(kit.BOB,))
    altered = written(tmp_path / "7.mibao", 7)
    data = bytearray(altered.read_bytes())
    data[90] ^= 1  # the selector: the recipients' list is no longer the one a recipient wrote
    altered.write_bytes(data)
    for path, error in ((forged, KeyMismatch), (foreign, KeyMismatch), (altered, IntegrityError)):
        with pytest.raises(error):
            open_(path)
    assert keep.read_bytes() == before
    open_(genuine)


def test_a_newer_model_with_a_broken_chunk_does_not_lock_out_the_older_one(tmp_path):
    keep = VersionState(tmp_path / "state")
    arguments = {"identity": kit.ALICE, "signer": kit.VENDOR.public, "state": keep}
    broken = written(tmp_path / "3.mibao", 3)
    data = bytearray(broken.read_bytes())
    data[-1] ^= 1
    broken.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"^data: chunk"):
        sealed.open_sealed(broken, tmp_path / "out", **arguments)
    sealed.open_sealed(written(tmp_path / "2.mibao", 2), tmp_path / "out", **arguments)


def test_verify_refuses_what_was_overtaken_and_remembers_nothing(tmp_path):
    keep = VersionState(tmp_path / "state")
    older, newer = written(tmp_path / "2.mibao", 2), written(tmp_path / "3.mibao", 3)
    sealed.verify(newer, signer=kit.VENDOR.public, state=keep)
    assert not keep.path.exists()
    sealed.open_bytes(newer, identity=kit.ALICE, signer=kit.VENDOR.public, state=keep)
    with pytest.raises(IntegrityError, match="older than one that was opened before"):
        sealed.verify(older, signer=kit.VENDOR.public, state=keep)
    with pytest.raises(IntegrityError, match="no version of this model"):
        sealed.verify(newer, signer=kit.VENDOR.public, state=VersionState(tmp_path / "other", require_known=True))


def test_a_newer_model_opened_meanwhile_refuses_the_one_on_its_way(tmp_path):
    """The state is asked again, under its lock, before the output appears."""
    keep = VersionState(tmp_path / "state")
    older = written(tmp_path / "2.mibao", 2)

    def opens_the_newer_one(done_bytes: int) -> None:
        keep.record(MANIFESTS[3])

    with pytest.raises(IntegrityError, match="older than one that was opened before"):
        sealed.open_sealed(
            older, tmp_path / "out", identity=kit.ALICE, signer=kit.VENDOR.public, state=keep,
            progress=opens_the_newer_one,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_deleting_the_state_reopens_rollback(open_, tmp_path):
    """A limit that the documentation names."""
    open_(written(tmp_path / "3.mibao", 3))
    (tmp_path / "state").unlink()
    open_(written(tmp_path / "2.mibao", 2))


def test_the_file_is_the_owners_alone_and_says_what_was_opened(tmp_path):
    keep = VersionState(tmp_path / "new" / "folder" / "state")
    keep.record(MANIFESTS[3])
    assert keep.path.stat().st_mode & 0o777 == 0o600
    assert keep.path.parent.stat().st_mode & 0o777 == 0o700
    (model,) = json.loads(keep.path.read_text())["models"]
    assert (model["signer"], model["model_id"], model["version"]) == (str(kit.VENDOR.key_id), "acme/tiny", 3)


RECORDER = """
import sys
from dataclasses import replace
import sealed_kit as kit
from mibao.sealed import VersionState, opening
from mibao.sealed.source import MemorySource

keep = VersionState(sys.argv[1])
first = opening.read_verified(MemorySource(kit.sealed_bytes()), signer=kit.VENDOR.public).manifest
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    keep.record(replace(first, model_id=f"{sys.argv[2]}/{number}", version=number + 1))
"""


def test_two_processes_at_once_lose_nothing(tmp_path):
    count = counts(short=15, long=150)
    command = [sys.executable, "-c", RECORDER, tmp_path / "state"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    running = [
        subprocess.Popen([*command, name, str(count)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in ("a", "b", "c")
    ]
    assert [each.stdout.readline() for each in running] == [b"ready\n"] * 3
    for each in running:
        each.stdin.write(b"\n")
        each.stdin.flush()
    for each in running:
        each.communicate(timeout=120)
        assert each.returncode == 0
    known = state.decode((tmp_path / "state").read_bytes())
    expected = {(f"{name}/{number}", number + 1) for name in "abc" for number in range(count)}
    assert {(model_id, release.version) for (_, model_id), release in known.items()} == expected
    assert {each.name for each in tmp_path.iterdir()} == {"state", "state.lock"}


def test_the_default_file_lies_in_the_users_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert VersionState().path == tmp_path / "mibao" / "sealed-versions"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", unset)
        monkeypatch.setenv("HOME", "/home/alice")
        assert sealed.default_state_path() == Path("/home/alice/.local/state/mibao/sealed-versions")


def test_without_a_home_folder_the_file_must_be_named(monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)

    def homeless():
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(InputError, match="no home folder"):
        VersionState()
