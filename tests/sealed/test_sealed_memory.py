"""What was decrypted into memory is wiped, stays out of core dumps, and is not closed under anybody's feet."""

import ctypes
import gc
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

import sealed_kit as kit
from mibao import sealed
from mibao.errors import InputError, IntegrityError
from mibao.sealed.memory import SecretPages, fresh_memory

LOADS = {
    "load_numpy": lambda model: model.load_numpy(),
    "numpy": lambda model: model["layer.weight"].numpy(),
    "rows": lambda model: model.rows("layer.weight", 1, 30),
    "raw": lambda model: model["layer.weight"].raw(),
    "a view of a view": lambda model: model["layer.weight"].numpy()[3:4].T,
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "m.mibao"
    path.write_bytes(kit.sealed_bytes())
    return path


def opened(path):
    return sealed.open_model(path, identity=kit.ALICE, signer=kit.VENDOR.public)


def flags(address: int) -> list[str]:
    """The flags that the kernel shows for the mapping of ``address``."""
    within = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if bounds:
            within = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif within and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("no such mapping")


def first_array(loaded) -> np.ndarray:
    return next(iter(loaded.values())) if isinstance(loaded, dict) else np.asarray(loaded)


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_model_is_not_closed_while_anybody_holds_its_memory(path, load):
    model = opened(path)
    loaded = load(model)
    before = first_array(loaded).copy()
    with pytest.raises(InputError, match=r"1 of its buffers are still in use: let go of every array"):
        model.close()
    assert np.array_equal(first_array(loaded), before), "nothing is wiped under a reader's feet"
    with pytest.raises(InputError, match="is closed"):
        model.load_numpy()
    del loaded
    model.close()
    model.close()


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_decrypted_tensors_stay_out_of_core_dumps(path, load):
    with opened(path) as model:
        loaded = load(model)
        assert "dd" in flags(first_array(loaded).ctypes.data)
        del loaded
    assert "dd" not in flags(np.zeros(100_000).ctypes.data), "the flag tells the two apart"


def test_a_block_that_ends_with_arrays_in_use_says_so(path):
    with pytest.raises(InputError, match="still in use"), opened(path) as model:
        kept = model.load_numpy()
    assert kept


def test_an_error_within_the_block_is_the_one_that_comes_out(path):
    with pytest.raises(ZeroDivisionError), opened(path) as model:
        kept = model["bias"].numpy()
        kept[0] = 1 // 0
    assert kept.any()


@pytest.mark.parametrize("count", [1, 4096, (1 << 18) + 5, 3 << 20])
def test_memory_is_wiped_to_its_last_byte_before_it_is_given_back(count, monkeypatch):
    left = []
    wipe = SecretPages._wipe

    def watched(pages):
        assert pages[:].strip(b"s") == b""
        wipe(pages)
        left.append(bytes(pages[:]))

    monkeypatch.setattr(SecretPages, "_wipe", watched)
    for let_go in ("close", "drop"):
        view = fresh_memory(count)
        view[:] = b"s" * count
        pages = view.obj
        view.release()
        if let_go == "close":
            pages.close()
        del view, pages
    assert left == [bytes(count)] * 2, "once each"


LOADER = """
import sys
import sealed_kit as kit
from mibao import sealed

model = sealed.open_model(sys.argv[1], identity=kit.ALICE, signer=kit.VENDOR.public)
loads = {"load_numpy": lambda: model.load_numpy(), "raw": lambda: model["w"].raw(),
         "rows": lambda: model.rows("w", 0, 300)}
loaded = loads[sys.argv[2]]()
print("loaded", flush=True)
sys.stdin.readline()
del loaded
model.close()
print("closed", flush=True)
sys.stdin.readline()
"""


def copies(pid: int, secret: bytes) -> int:
    """How often ``secret`` stands in the memory that another process can write to."""
    found = 0
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, end, access = re.match(r"([0-9a-f]+)-([0-9a-f]+) (....)", line).groups()
            if access.startswith("rw"):
                memory.seek(int(begin, 16))
                found += memory.read(int(end, 16) - int(begin, 16)).count(secret)
    return found


@pytest.mark.parametrize("load", ["load_numpy", "raw", "rows"])
def test_after_closing_nothing_of_the_weights_is_left_in_the_process(tmp_path, load):
    secret = b"A_Secret_Weight" * 8
    weights = np.frombuffer(secret * 300, "u1").reshape(300, -1)
    (tmp_path / "m").write_bytes(kit.sealed_bytes(("m.safetensors", save({"w": weights}))))
    with subprocess.Popen(
        [sys.executable, "-c", LOADER, tmp_path / "m", load],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout.readline() == b"loaded\n"
            assert copies(process.pid, secret) >= 300
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"closed\n"
            assert copies(process.pid, secret) == 0
        finally:
            process.kill()


DUMPED = """
import os, resource, sys
import sealed_kit as kit
from mibao import sealed

resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
model = sealed.open_model(sys.argv[1], identity=kit.ALICE, signer=kit.VENDOR.public)
held = [model.load_numpy(), model["w"].raw(), model.rows("w", 0, 300)]
copied = bytearray(held[1]) if sys.argv[2] == "a copy of ours too" else None
os.abort()
"""


@pytest.mark.parametrize("held", ["the model's memory alone", "a copy of ours too"])
def test_a_core_dump_holds_copies_made_outside_and_nothing_of_the_models_memory(tmp_path, held):
    secret = b"A_Secret_Weight" * 8
    weights = np.frombuffer(secret * 300, "u1").reshape(300, -1)
    (tmp_path / "m").write_bytes(kit.sealed_bytes(("m.safetensors", save({"w": weights}))))
    done = subprocess.run(
        [sys.executable, "-c", DUMPED, "m", held],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGABRT
    dumps = list(tmp_path.glob("core*"))
    if not dumps:  # handed to a program, or kept from us by a limit: the kernel's flags are tested above
        pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
        hard_limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
        assert not pattern.startswith("core") or hard_limit != resource.RLIM_INFINITY
        return
    assert (dumps[0].read_bytes().count(secret) >= 300) is (held == "a copy of ours too")
    if held == "the model's memory alone":
        assert secret not in dumps[0].read_bytes()


def test_a_failed_load_keeps_nothing_in_use(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    model = opened(path)
    with pytest.raises(IntegrityError):
        model.load_numpy()
    gc.collect()
    model.close()


def test_what_is_left_of_a_dropped_array_is_zero():
    """Read through an address that nobody accounts for, while the mapping is kept by a second object on it."""
    pages = SecretPages(4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    gc.collect()
    pages[:6] = b"secret"
    assert ctypes.string_at(address, 6) == b"secret"
    pages._wipe()
    assert ctypes.string_at(address, 4096) == bytes(4096)
    pages.close()
