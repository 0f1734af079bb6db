"""The commands of sealed models, from the words on the command line to the exit code."""

import subprocess

import numpy as np
import pytest
from safetensors.numpy import save_file

from command_line import mibao


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Keys of Alice, Bob and a vendor, and a model sealed to Alice."""
    folder = tmp_path_factory.mktemp("commands")
    for arguments in (("-o", "alice.key"), ("-o", "bob.key"), ("--sign", "-o", "vendor.key")):
        assert mibao("keygen", *arguments, folder=folder).returncode == 0
    save_file({"w": np.arange(300.0)}, folder / "m.safetensors")
    done = mibao(
        "seal", "m.safetensors", "-o", "m.mibao", "--to", "alice.pub", "--sign", "vendor.key",
        "--model-id", "acme/tiny", "--version", 2, folder=folder,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def open_(folder, key: str, *more: object, to: str) -> subprocess.CompletedProcess[str]:
    return mibao("open", "m.mibao", "--key", key, "--signer", "vendor.pub", "-o", to, *more, folder=folder)


def test_open_writes_the_exact_bytes(folder):
    assert open_(folder, "alice.key", "--min-version", 2, to="again").returncode == 0
    assert (folder / "again").read_bytes() == (folder / "m.safetensors").read_bytes()


def test_verify_needs_no_key_and_says_what_it_did_not_check(folder):
    done = mibao("verify", "m.mibao", "--signer", "vendor.pub", folder=folder)
    assert done.returncode == 0
    assert "not checked without a recipient's key" in done.stdout


def test_inspect_shows_tensors_only_with_a_key(folder):
    without = mibao("inspect", "m.mibao", folder=folder).stdout
    assert "acme/tiny version 2" in without
    assert "F64" not in without
    assert "w  F64  300" in mibao("inspect", "m.mibao", "--key", "alice.key", folder=folder).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("m.mibao", "--key", "bob.key", "--signer", "vendor.pub"), 4, "not sealed to this key"),
        (("m.mibao", "--key", "alice.key", "--signer", "alice.pub"), 2, "expected a signer's public key"),
        (("m.mibao", "--key", "vendor.key", "--signer", "vendor.pub"), 2, "expected a recipient's private key"),
        (("m.safetensors", "--key", "alice.key", "--signer", "vendor.pub"), 2, "expected a sealed model"),
        (("missing", "--key", "alice.key", "--signer", "vendor.pub"), 2, "missing: No such file"),
        (("m.mibao", "--key", "alice.key", "--signer", "vendor.pub", "--min-version", 3), 1, "older than the lowest"),
    ],
)
def test_a_refusal_is_one_line_and_writes_nothing(folder, arguments, code, message):
    done = mibao("open", *arguments, "-o", "never", folder=folder)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (folder / "never").exists()


def test_an_altered_file_leaves_nothing_behind(folder):
    data = bytearray((folder / "m.mibao").read_bytes())
    data[-1] ^= 1
    (folder / "altered.mibao").write_bytes(data)
    before = sorted(each.name for each in folder.iterdir())
    done = mibao("open", "altered.mibao", "--key", "alice.key", "--signer", "vendor.pub", "-o", "never", folder=folder)
    assert (done.returncode, done.stderr) == (1, "error: data: chunk 0 of tensor 'w' was altered\n")
    assert mibao("verify", "altered.mibao", "--signer", "vendor.pub", folder=folder).returncode == 1
    assert sorted(each.name for each in folder.iterdir()) == before


def test_rewrap_lets_bob_in_and_alice_out(folder):
    (folder / "shared.mibao").write_bytes((folder / "m.mibao").read_bytes())
    done = mibao(
        "rewrap", "shared.mibao", "--key", "alice.key", "--add", "bob.pub", "--remove", "alice.pub", folder=folder
    )
    assert done.returncode == 0
    assert "may have kept the key" in done.stdout
    for key, code in (("bob.key", 0), ("alice.key", 4)):
        opened = mibao("open", "shared.mibao", "--key", key, "--signer", "vendor.pub", "-o", f"by-{key}", folder=folder)
        assert opened.returncode == code


def test_an_existing_output_is_kept(folder):
    done = open_(folder, "alice.key", to="alice.pub")
    assert done.returncode == 2
    assert "exists already and is not overwritten" in done.stderr
