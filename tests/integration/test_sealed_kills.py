"""Real `mibao seal` and `open` processes, killed at random moments."""

import os
import random
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import sealed_kit as kit
from counts import counts
from mibao import sealed
from mibao.cli import keys_io
from mibao.sealed import layout, opening
from mibao.sealed.chunks import PartChunks
from mibao.sealed.source import MemorySource

CHUNK_BYTES = 1 << 18
VALUES = 3_000_000  # 24 MB: long enough to be killed in the middle
PARTIAL = ".mibao-partial"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    keys_io.write_pair(folder / "alice.key", kit.ALICE, passphrase=None)
    keys_io.write_pair(folder / "vendor.key", kit.VENDOR, passphrase=None)
    return folder


def source(folder: Path, seed: int) -> bytes:
    """A model that differs from every other seed's in each chunk, and has the same size."""
    save_file({"w": np.random.default_rng(seed).integers(0, 2**62, VALUES)}, folder / "m.safetensors")
    return (folder / "m.safetensors").read_bytes()


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    return subprocess.Popen([sys.executable, "-m", "mibao", *arguments], cwd=folder, env=environment)


def start_seal(folder: Path) -> subprocess.Popen[bytes]:
    return start(
        folder, "seal", "m.safetensors", "-o", "m.mibao", "--to", "alice.pub", "--sign", "vendor.key",
        "--model-id", "acme/tiny", "--version", "1",
    )  # fmt: skip


def leavings(folder: Path) -> list[Path]:
    return [each for each in folder.iterdir() if each.name.endswith(PARTIAL)]


def kill(process: subprocess.Popen[bytes], folder: Path, draw: random.Random, old: list[Path]) -> None:
    """At a random moment, three times in four while the output is being written."""
    if draw.random() < 0.75:
        while process.poll() is None and all(each in old for each in leavings(folder)):
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.12))
    else:
        time.sleep(draw.uniform(0, 0.8))
    process.kill()
    process.wait(timeout=30)


def heads(sealed_file: bytes, plain: bytes, data_at: int) -> dict[int, int]:
    """Of each chunk that was written the first 64 bytes of its keystream."""
    header = len(plain) - 8 * VALUES
    chunks = PartChunks(0, [8 * VALUES], chunk_bytes=CHUNK_BYTES)
    found = {}
    for chunk in chunks:
        cipher = sealed_file[data_at + chunk.cipher_begin :][:64]
        if len(cipher) == 64 and any(cipher):
            known = plain[header + chunk.begin :][:64]
            found[chunk.counter] = int.from_bytes(cipher, "big") ^ int.from_bytes(known, "big")
    return found


def shared(one: dict[int, int], other: dict[int, int]) -> bool:
    """Whether two runs encrypted a chunk under the same key and nonce."""
    return any(one[counter] == other[counter] for counter in one.keys() & other.keys())


def test_a_killed_seal_leaves_a_whole_file_or_none_and_shares_no_key_with_the_next(folder: Path) -> None:
    draw = random.Random(3)  # noqa: S311 - the same moments in every run, as far as a clock allows
    runs: list[tuple[bytes, bytes]] = []
    output = folder / "m.mibao"
    interrupted = 0
    for trial in range(100):
        if trial >= counts(short=3, long=20) and interrupted:
            break
        plain, old = source(folder, trial), leavings(folder)
        kill(start_seal(folder), folder, draw, old)
        if output.exists():
            assert sealed.open_bytes(output, identity=kit.ALICE, signer=kit.VENDOR.public) == plain, f"trial {trial}"
            runs.append((output.read_bytes(), plain))
            output.unlink()
        new = [each for each in leavings(folder) if each not in old]
        assert len(leavings(folder)) <= 1, "what an earlier run left is gone once this one has begun to write"
        runs += [(each.read_bytes(), plain) for each in new]
        interrupted += len(new)
    assert interrupted >= 1
    plain = source(folder, 1000)
    assert start_seal(folder).wait(timeout=60) == 0
    assert leavings(folder) == []
    assert sealed.open_bytes(output, identity=kit.ALICE, signer=kit.VENDOR.public) == plain
    runs.append((output.read_bytes(), plain))
    data_at = layout.parse_preamble(runs[-1][0][:64], file_bytes=len(runs[-1][0])).data_at
    streams = [heads(*run, data_at) for run in runs]
    assert sum(map(bool, streams)) >= 2
    assert not any(shared(one, other) for one, other in combinations(streams, 2))
    whole = [opening.read_unverified(MemorySource(data)).manifest for data, _ in runs if data[:1] == layout.MAGIC[:1]]
    for field in ("file_id", "commitment"):
        assert len({getattr(each, field) for each in whole}) == len(whole)


def test_a_key_used_twice_would_be_seen() -> None:
    """The check of the test above, on two files that do share their key."""
    plains = [bytes(8) + np.random.default_rng(seed).bytes(8 * VALUES) for seed in (1, 2)]
    chunks = PartChunks(0, [8 * VALUES], chunk_bytes=CHUNK_BYTES)
    pad = np.random.default_rng(3).bytes(64)
    files = []
    for plain in plains:
        data = bytearray(chunks.cipher_bytes)
        chunk = chunks[5]
        mixed = int.from_bytes(plain[8 + chunk.begin :][:64], "big") ^ int.from_bytes(pad, "big")
        data[chunk.cipher_begin : chunk.cipher_begin + 64] = mixed.to_bytes(64, "big")
        files.append(bytes(data))
    assert shared(heads(files[0], plains[0], 0), heads(files[1], plains[1], 0))


def test_a_killed_open_leaves_no_part_of_the_model_for_long(folder: Path) -> None:
    draw = random.Random(4)  # noqa: S311
    plain = source(folder, 2000)
    (folder / "m.mibao").unlink(missing_ok=True)
    assert start_seal(folder).wait(timeout=60) == 0
    command = ("open", "m.mibao", "--key", "alice.key", "--signer", "vendor.pub", "-o", "opened")
    for trial in range(counts(short=2, long=20)):
        kill(start(folder, *command), folder, draw, leavings(folder))
        if (folder / "opened").exists():
            assert (folder / "opened").read_bytes() == plain, f"trial {trial}"
            (folder / "opened").unlink()
    assert start(folder, *command).wait(timeout=60) == 0
    assert (folder / "opened").read_bytes() == plain
    assert leavings(folder) == []
