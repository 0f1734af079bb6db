"""A compute host whose parsing happens elsewhere: in a worker process with limits on memory and time.

Digests find accidents; whoever can recompute one can still send a native library whatever it likes. Bundle, keys and
requests are therefore parsed, and circuits evaluated, in a process that holds nothing else. When it crashes, runs out
of memory or takes too long, that request is refused and the next one gets a fresh worker; the host goes on.

A worker is bounded and not confined: code that took it over could still read files as this user. Run the host as a
user of its own. What a worker sends back is bounded in size and never decoded here.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from mibao.errors import InputError, IntegrityError, KeyMismatch, MibaoError, MissingExtra
from mibao.he.account import checked_account
from mibao.he.envelope import MAX_BYTES, Kind

_LENGTH_BYTES = 8
_ANSWER, _OUT_OF_MEMORY = 0, 1
_ERRORS: dict[int, type[MibaoError]] = {2: InputError, 3: IntegrityError, 4: KeyMismatch}
_MAX_ERROR_BYTES = 2000
_SLACK_BYTES = 1 << 16
_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL")
_MAX_MESSAGE_BYTES = max(MAX_BYTES.values()) + _SLACK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """What one request, or one set of keys, may cost.

    Attributes:
        memory_bytes: Beyond what the worker holds when it has loaded the library.
        cpu_s: Processor time, whole seconds; the kernel ends the worker after it.
        wall_s: Time until the host ends the worker.
    """

    memory_bytes: int = 4 << 30
    cpu_s: int = 300
    wall_s: float = 600.0

    def __post_init__(self) -> None:
        """Raise ``InputError`` unless all three are positive."""
        if self.memory_bytes < 1 or self.cpu_s < 1 or not self.wall_s > 0:
            raise InputError("worker limits: expected positive memory, processor time and wall time")


class SandboxedServer:
    """A :class:`~mibao.he.server.Server` in a worker process; use it in a ``with`` block, from any thread."""

    __slots__ = ("_account", "_bundle", "_keys", "_limits", "_lock", "_process")

    def __init__(
        self, *, bundle: bytes, keys: bytes, limits: WorkerLimits | None = None, account: str | None = None
    ) -> None:
        """Start a worker and let it parse both files.

        Raises:
            InputError, IntegrityError, KeyMismatch: as :meth:`mibao.he.server.Server.from_bytes`; ``IntegrityError``
                also when the worker died over them.
            MissingExtra: seal-python is not installed.
        """
        self._bundle, self._keys, self._limits = bundle, keys, limits or WorkerLimits()
        self._account = (checked_account(account) or "").encode()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        with self._lock:
            self._start()

    def __enter__(self) -> SandboxedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def evaluate(self, request: bytes) -> bytes:
        """The answer to ``request``, as :meth:`mibao.he.server.Server.evaluate` gives it.

        Raises:
            InputError, IntegrityError, KeyMismatch: as there; ``IntegrityError`` also when the worker died over it.
        """
        if len(request) > _MAX_MESSAGE_BYTES:
            raise InputError(f"request: expected at most {_MAX_MESSAGE_BYTES} bytes, got {len(request)}")
        with self._lock:
            process = self._start() if self._process is None else self._process
            return self._exchange(process, "request", request)

    def close(self) -> None:
        """End the worker; a request after it starts another."""
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "mibao.he.sandbox", str(self._limits.memory_bytes), str(self._limits.cpu_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            cwd="/",
        )
        self._exchange(process, "server keys", self._bundle, self._keys, self._account)
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                try:
                    if pipe is not None:
                        pipe.close()
                except BrokenPipeError:
                    pass  # what was left to write to a worker that is gone

    def _exchange(self, process: subprocess.Popen[bytes], part: str, *messages: bytes) -> bytes:
        """What the worker says to ``messages``; it is ended when it says nothing sensible in time."""
        watchdog = threading.Timer(self._limits.wall_s, process.kill)
        watchdog.start()
        try:
            status, payload = _ask(process, messages)
        except (OSError, EOFError) as error:
            self._end()
            raise IntegrityError(f"{part}: the worker that parsed them died or took too long") from error
        except BaseException:  # interrupted between question and answer: the next one would get this one's
            self._end()
            raise
        finally:
            watchdog.cancel()
        if status == _ANSWER:
            return payload
        if part != "request" or status == _OUT_OF_MEMORY:
            self._end()
        if status == _OUT_OF_MEMORY:
            raise IntegrityError(f"{part}: takes more memory than a worker may have")
        raise _ERRORS[status](payload.decode("utf-8", "replace"))


def _ask(process: subprocess.Popen[bytes], messages: tuple[bytes, ...]) -> tuple[int, bytes]:
    """Status and payload. Raises ``OSError`` or ``EOFError`` when the worker is gone or says nonsense."""
    sink, source = process.stdin, process.stdout
    if sink is None or source is None:
        raise EOFError("worker: started without pipes")
    for message in messages:
        _send(sink, message)
    status = _read(source, 1)[0]
    longest = MAX_BYTES[Kind.ANSWER] + _SLACK_BYTES if status == _ANSWER else _MAX_ERROR_BYTES
    if status not in (_ANSWER, _OUT_OF_MEMORY, *_ERRORS):
        raise EOFError("worker: an unknown status")
    return status, _receive(source, longest)


def _send(stream: IO[bytes], message: bytes) -> None:
    stream.write(len(message).to_bytes(_LENGTH_BYTES, "big"))
    stream.write(message)
    stream.flush()


def _receive(stream: IO[bytes], longest: int) -> bytes:
    length = int.from_bytes(_read(stream, _LENGTH_BYTES), "big")
    if length > longest:
        raise EOFError("worker: a message longer than any may be")
    return _read(stream, length)


def _read(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError("worker: ended within a message")
    return data


def main(memory_bytes: int, cpu_s: int) -> None:
    """The worker: bundle, keys and account first, then requests, until the host closes the pipe."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    bundle, keys, account = (_receive(source, _MAX_MESSAGE_BYTES) for _ in range(3))
    limits = WorkerLimits(memory_bytes=memory_bytes, cpu_s=cpu_s)
    try:
        _serve(source, sink, bundle=bundle, keys=keys, account=account.decode() or None, limits=limits)
    except MibaoError as error:
        _report(sink, error)
    except MemoryError:  # perhaps within a request, of which the rest is still in the pipe: this worker is done
        _say(sink, _OUT_OF_MEMORY, b"")


def _serve(
    source: IO[bytes], sink: IO[bytes], *, bundle: bytes, keys: bytes, account: str | None, limits: WorkerLimits
) -> None:
    from mibao.he.files import server_from  # noqa: PLC0415  (the host itself never loads what follows)

    try:
        import seal  # noqa: F401, PLC0415  (its memory is not the request's)
    except ImportError as error:
        raise MissingExtra("encrypted compute", extra="he") from error
    _limit(limits)
    server = server_from(bundle=bundle, keys=keys, account=account)
    _say(sink, _ANSWER, b"")
    while header := source.read(_LENGTH_BYTES):
        _limit_time(limits)
        try:
            _say(sink, _ANSWER, server.evaluate(_read(source, int.from_bytes(header, "big"))))
        except MibaoError as error:
            _report(sink, error)


def _report(sink: IO[bytes], error: MibaoError) -> None:
    status = next(status for status, kind in _ERRORS.items() if isinstance(error, kind))
    _say(sink, status, str(error).encode()[:_MAX_ERROR_BYTES])


def _say(sink: IO[bytes], status: int, payload: bytes) -> None:
    sink.write(bytes([status]))
    _send(sink, payload)


def _limit(limits: WorkerLimits) -> None:
    """No more memory than this beyond what is held, no core dumps, no files, no processes."""
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + limits.memory_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _limit_time(limits)


def _limit_time(limits: WorkerLimits) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + limits.cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
