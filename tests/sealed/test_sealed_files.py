"""Files that appear whole or not at all, and what is left of a run that was killed."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mibao.errors import InputError
from mibao.sealed import files

KILLED = """
import os, signal, sys
from pathlib import Path
from mibao.sealed import files

path = Path(sys.argv[2])
if sys.argv[1] == "file":
    with files.whole_file(path, mode=0o600) as sink:
        sink.write_at(0, b"half")
        os.kill(os.getpid(), signal.SIGKILL)
with files.whole_folder(path) as folder, files.file_within(folder / "sub" / "part", mode=0o600) as sink:
    sink.write_at(0, b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def killed(kind: str, path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, kind, path], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()


def write(path: Path, content: bytes) -> None:
    with files.whole_file(path, mode=0o600) as sink:
        sink.write_at(0, content)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_run_left_is_removed_by_the_next_one(tmp_path, kind):
    killed(kind, tmp_path / "m")
    (left,) = names(tmp_path)
    assert left.startswith(".m.")
    assert left.endswith(".mibao-partial")
    write(tmp_path / "other", b"")
    assert left in names(tmp_path), "another output's business"
    if kind == "file":
        write(tmp_path / "m", b"whole")
    else:
        with files.whole_folder(tmp_path / "m"):
            pass
    assert names(tmp_path) == ["m", "other"]


def test_what_another_run_is_still_writing_is_left_alone(tmp_path):
    path = tmp_path / "m"
    with files.whole_folder(tmp_path / "f"), files.whole_file(path, mode=0o600) as slow:
        slow.write_at(0, b"slow")
        write(path, b"quick")
        assert path.read_bytes() == b"quick"
        with pytest.raises(InputError, match=r"f: cannot be written"), files.whole_folder(tmp_path / "f") as other:
            (other / "x").touch()
            (tmp_path / "f").mkdir()
            (tmp_path / "f" / "taken").touch()
        (tmp_path / "f" / "taken").unlink()
    assert path.read_bytes() == b"slow"
    assert names(tmp_path) == ["f", "m"]


@pytest.mark.parametrize("name", [".m.0123456789abcdef", ".m.0123.mibao-partial", "m.0123456789abcdef.mibao-partial"])
def test_files_of_other_names_are_nobodys_leavings(tmp_path, name):
    (tmp_path / name).touch()
    write(tmp_path / "m", b"")
    assert names(tmp_path) == sorted([name, "m"])


def test_a_link_in_place_of_something_left_is_not_followed(tmp_path):
    (tmp_path / "precious").write_bytes(b"kept")
    (tmp_path / ".m.0123456789abcdef.mibao-partial").symlink_to(tmp_path / "precious")
    write(tmp_path / "m", b"")
    assert (tmp_path / "precious").read_bytes() == b"kept"


@pytest.mark.parametrize("name", ["é" * 127, "x" * 255])
def test_the_longest_names_can_be_written(tmp_path, name):
    write(tmp_path / name, b"whole")
    with files.whole_folder(tmp_path / name[::-1].replace("x", "y", 1).replace("é", "ée", 1)[:127]):
        pass
    assert (tmp_path / name).read_bytes() == b"whole"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_taken_for_stale_before_it_was_locked_is_made_again(tmp_path, kind, monkeypatch):
    taken = []
    real = fcntl.flock

    def slow(descriptor, operation):
        if not taken:
            (found,) = tmp_path.iterdir()
            taken.append(found)
            found.rmdir() if found.is_dir() else found.unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    if kind == "file":
        write(tmp_path / "m", b"whole")
    else:
        with files.whole_folder(tmp_path / "m"):
            pass
    assert taken
    assert names(tmp_path) == ["m"]


def test_without_locks_nothing_is_taken_for_stale(tmp_path, monkeypatch):
    killed("file", tmp_path / "m")

    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    write(tmp_path / "m", b"whole")
    assert (tmp_path / "m").read_bytes() == b"whole"
    assert len(names(tmp_path)) == 2
