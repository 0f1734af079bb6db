"""A real PostgreSQL on a socket in a folder of its own, run by a user without privileges."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_USER = "mibao"
_START_S = 60.0
_numbers = itertools.count(1)


def _program(name: str) -> str:
    found = [shutil.which(name), *sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))]
    paths = [path for path in found if path]
    if not paths:
        pytest.skip(f"needs {name}: apt install postgresql")
    return paths[-1]


class Cluster:
    """A server that can be killed and started again; every :meth:`database` is empty."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._data = folder, folder / "data"
        # PostgreSQL refuses to run as root.
        nobody = pwd.getpwnam("nobody")
        self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        if self._as:
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        self._run("initdb", "-D", self._data, "-U", _USER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": self._folder,
            "shared_buffers": "16MB",
            "fsync": "off",  # which is for power failures: a test kills processes, and what they wrote stays
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program("postgres"), "-D", str(self._data), *words], stdout=log, stderr=log, cwd="/", **self._as
            )
        until = time.monotonic() + _START_S
        while subprocess.run([_program("pg_isready"), "-q", "-h", self._folder], check=False).returncode != 0:
            assert self._process.poll() is None and time.monotonic() < until, (self._folder / "log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill every one of its processes with signal 9."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for process in (self._process.pid, *map(int, children)):
            os.kill(process, signal.SIGKILL)
        self._process.wait(timeout=30)
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        time.sleep(0.2)  # until the kernel has ended the children, whose shared memory the next one wants

    def stop(self) -> None:
        """Stop it, in order."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=30)

    def database(self) -> str:
        """The address of a new, empty schema: to whoever connects there, a database of their own."""
        name = f"test{next(_numbers)}"
        self._run("psql", "-q", "-h", self._folder, "-U", _USER, "-d", "postgres", "-c", f"CREATE SCHEMA {name}")
        return f"postgresql://{_USER}@/postgres?host={self._folder}&options=-csearch_path%3D{name}"

    def _run(self, name: str, *words: object) -> None:
        command = [_program(name), *map(str, words)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=120, **self._as)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """One that is gone afterwards."""
    _program("initdb")
    folder = Path(tempfile.mkdtemp(prefix="mibao-postgres-"))
    try:
        started = Cluster(folder)
        try:
            yield started
        finally:
            started.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
