"""Room on the disk claimed before the work, and writing started before it ends."""

import os
import subprocess
import sys

from mibao.sealed import allocation
from mibao.sealed.files import PUBLIC_MODE, whole_file

LIMITED = """
import resource, sys
from pathlib import Path
from mibao.errors import InputError
from mibao.sealed.files import PUBLIC_MODE, whole_file

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
path = Path(sys.argv[1])
try:
    with whole_file(path, mode=PUBLIC_MODE) as sink:
        sink.reserve(1 << 21)
        print("reserved")
except InputError as error:
    print(str(error).removeprefix(str(path)), [*path.parent.iterdir()])
"""


def test_what_is_written_back_early_is_what_was_written(tmp_path):
    path = tmp_path / "whole"
    content = os.urandom(3 * allocation.WINDOW_BYTES + 17)
    with whole_file(path, mode=PUBLIC_MODE) as sink:
        for at in range(0, len(content), 1_000_003):
            sink.write_at(at, content[at : at + 1_000_003])
    assert path.read_bytes() == content


def test_reserved_room_belongs_to_the_file_before_anything_is_written(tmp_path):
    with whole_file(tmp_path / "whole", mode=PUBLIC_MODE) as sink:
        sink.reserve(1 << 20)
        found = os.fstat(sink.descriptor)
        assert found.st_size == 1 << 20
        assert found.st_blocks * 512 >= 1 << 20
        sink.write_at(0, bytes(1 << 20))


def test_a_place_without_room_fails_before_the_work_and_keeps_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "m"], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == ": cannot be written (File too large) []\n"


def test_a_file_system_that_cannot_reserve_is_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(allocation, "_allocate", None)
    with whole_file(tmp_path / "whole", mode=PUBLIC_MODE) as sink:
        sink.reserve(1 << 20)
        sink.write_at(0, b"all")
    assert (tmp_path / "whole").read_bytes() == b"all"
