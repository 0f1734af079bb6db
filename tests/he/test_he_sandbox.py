"""Whatever a hostile sender writes, the host goes on: it is parsed in a worker with limits."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from counts import counts
from he_cases import BOTH, DATA, circuit, records_of, reframed, weights_of
from mibao.errors import InputError, IntegrityError, KeyMismatch, MibaoError
from mibao.he import sandbox
from mibao.he.envelope import Kind
from mibao.he.sandbox import SandboxedServer, WorkerLimits

KEYS = Kind.SERVER_KEYS


@pytest.fixture(scope="module")
def both():
    """A circuit with evaluation keys, which a library parses: client, files of its host, a request."""
    client, server = circuit(BOTH).keygen()
    return client, {"bundle": server.bundle_bytes(), "keys": server.keys_bytes()}, client.encrypt(records_of())


@pytest.fixture(scope="module")
def host(both):
    with SandboxedServer(**both[1]) as running:
        yield running


def outcome(call):
    try:
        call()
    except MibaoError as error:
        return type(error).__name__
    return "answered"


def changed(rng, data):
    """Some bytes of ``data`` changed, cut out or put in."""
    damaged, at = bytearray(data), int(rng.integers(0, len(data)))
    width = int(rng.choice([1, 8, 4096]))
    match rng.integers(0, 4):
        case 0:
            damaged[at] ^= int(rng.integers(1, 256))
        case 1:
            damaged[at : at + width] = rng.bytes(len(damaged[at : at + width]))
        case 2:
            del damaged[at : at + width]
        case _:
            damaged[at:at] = rng.bytes(width)
    return bytes(damaged) if bytes(damaged) != data else changed(rng, data)


def test_answers_are_those_of_the_server(both, host):
    client, _, sent = both
    weights, bias = weights_of()
    assert np.allclose(client.decrypt(host.evaluate(sent)), records_of() @ weights + bias, atol=1e-3)


def test_changed_requests_are_all_refused_by_the_digest(both, host):
    rng = np.random.default_rng(0)
    outcomes = [outcome(lambda: host.evaluate(changed(rng, both[2]))) for _ in range(counts(short=30, long=5000))]
    assert set(outcomes) == {"IntegrityError"}


def test_requests_changed_under_a_matching_digest_leave_the_host_running(both, host):
    rng = np.random.default_rng(1)
    outcomes = [
        outcome(lambda: host.evaluate(reframed(both[2], Kind.REQUEST, body=lambda body: changed(rng, body))))
        for _ in range(counts(short=30, long=5000))
    ]
    assert set(outcomes) == {"answered", "IntegrityError"}
    assert host.evaluate(both[2])


def test_keys_changed_under_a_matching_digest_leave_the_host_running(both):
    rng, files = np.random.default_rng(2), both[1]

    def start():
        forged = reframed(files["keys"], KEYS, body=lambda body: body[:16] + changed(rng, body[16:]))
        SandboxedServer(bundle=files["bundle"], keys=forged).close()

    outcomes = {outcome(start) for _ in range(counts(short=3, long=500))}
    assert outcomes <= {"answered", "IntegrityError"}


@pytest.mark.parametrize("ending", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_worker_that_dies_costs_one_request_and_the_next_gets_another(both, ending):
    with SandboxedServer(**both[1]) as host:
        os.kill(host._process.pid, ending)
        with pytest.raises(IntegrityError, match="request: the worker that parsed them died or took too long"):
            host.evaluate(both[2])
        assert host.evaluate(both[2])


def test_a_worker_that_hangs_is_ended(both):
    with SandboxedServer(**both[1], limits=WorkerLimits(wall_s=3.0)) as host:
        os.kill(host._process.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(IntegrityError, match="died or took too long"):
            host.evaluate(both[2])
        assert time.monotonic() - started < 15
        assert host.evaluate(both[2])


def test_a_request_that_takes_more_memory_than_allowed_is_refused_and_the_next_one_answered():
    compiled = circuit(DATA, features=40, outputs=1)
    client, server = compiled.keygen()
    files = {"bundle": server.bundle_bytes(), "keys": server.keys_bytes()}
    limit, small = 96 << 20, client.encrypt(records_of(features=40))
    large = reframed(small, Kind.REQUEST, body=lambda body: body + bytes(limit))
    with SandboxedServer(**files, limits=WorkerLimits(memory_bytes=limit)) as host:
        with pytest.raises(IntegrityError, match=r"request: (takes more memory|the worker that)"):
            host.evaluate(large)
        assert host.evaluate(small)


def test_the_kernel_ends_a_worker_that_takes_more_processor_time_than_allowed():
    script = "from mibao.he.sandbox import WorkerLimits, _limit\n_limit(WorkerLimits(cpu_s=1))\nwhile True: pass"
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert done.returncode == -signal.SIGXCPU


def test_keys_that_are_refused_say_why(both):
    _, files, _ = both
    with pytest.raises(IntegrityError, match="server keys: its digest does not match"):
        SandboxedServer(bundle=files["bundle"], keys=files["keys"][:-1] + bytes([files["keys"][-1] ^ 1]))
    other = circuit(BOTH).keygen()[1]
    with pytest.raises(KeyMismatch, match="made under another key"):
        SandboxedServer(bundle=files["bundle"], keys=other.keys_bytes())
    with pytest.raises(InputError, match="wrong kind of file"):
        SandboxedServer(bundle=files["keys"], keys=files["keys"])


def test_a_closed_host_leaves_no_worker_behind(both):
    host = SandboxedServer(**both[1])
    pid = host._process.pid
    host.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_ends_with_its_host(both, tmp_path):
    """The host is killed without a word; the worker reads the end of its pipe."""
    for name, data in both[1].items():
        (tmp_path / name).write_bytes(data)
    script = (
        "import os, sys; from pathlib import Path; from mibao.he.sandbox import SandboxedServer\n"
        "folder = Path(sys.argv[1])\n"
        "host = SandboxedServer(bundle=(folder / 'bundle').read_bytes(), keys=(folder / 'keys').read_bytes())\n"
        "print(host._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, timeout=60, check=False)
    pid = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("the worker outlived its host")


@pytest.mark.parametrize(
    "said", [b"", b"\x07", b"\x00" + b"\xff" * 8, b"\x03" + (2001).to_bytes(8, "big") + bytes(2001)]
)
def test_a_worker_that_talks_nonsense_is_ended(both, said, monkeypatch):
    speaker = [sys.executable, "-c", f"import sys; sys.stdout.buffer.write({said!r})"]
    start = subprocess.Popen
    monkeypatch.setattr(sandbox.subprocess, "Popen", lambda _, **options: start(speaker, **options))
    with pytest.raises(IntegrityError, match="server keys: the worker that parsed them died"):
        SandboxedServer(**both[1])


@pytest.mark.parametrize("limits", [{"memory_bytes": 0}, {"cpu_s": 0}, {"wall_s": 0.0}, {"wall_s": float("nan")}])
def test_limits_that_allow_nothing_are_refused(limits):
    with pytest.raises(InputError, match="worker limits: expected positive memory"):
        WorkerLimits(**limits)
