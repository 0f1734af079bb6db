"""The commands of sealed models, from the words on the command line to the exit code."""

import contextlib
import os
import subprocess
import sys

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
    assert (done.returncode, done.stderr) == (1, "error: altered.mibao: data: chunk 0 of tensor 'w' was altered\n")
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


WORDS = {
    "open": ("--key", "alice.key", "--signer", "vendor.pub", "-o", "never"),
    "verify": ("--signer", "vendor.pub"),
    "inspect": ("--key", "alice.key"),
    "rewrap": ("--key", "alice.key", "--add", "bob.pub"),
}
NO_MODEL = {
    "missing": (2, "No such file or directory"),
    "m.safetensors": (2, "expected a sealed model (.mibao file), got something else"),
    "folder": (2, "expected a file"),
    "empty.mibao": (2, "expected a sealed model (.mibao file), got something else"),
    "future.mibao": (2, "sealed model: expected format 1 suite 1, got format 2 suite 1"),
    "cut.mibao": (1, "file: 1 bytes too short"),
    "header.mibao": (1, None),  # the list of recipients: what each command says of it differs
}


@pytest.fixture(scope="module")
def broken(folder):
    data = (folder / "m.mibao").read_bytes()
    (folder / "folder").mkdir()
    for name, content in {
        "empty.mibao": b"",
        "future.mibao": data[:9] + b"\2" + data[10:],
        "cut.mibao": data[:-1],
        "header.mibao": data[:64] + b"\7" + data[65:],
    }.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("command", WORDS)
@pytest.mark.parametrize("name", NO_MODEL)
def test_what_is_no_whole_sealed_model_is_named_in_one_line(broken, command, name):
    code, message = NO_MODEL[name]
    done = mibao(command, name, *WORDS[command], folder=broken)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert done.stderr.startswith(f"error: {name}: ")
    assert message is None or done.stderr == f"error: {name}: {message}\n"
    assert not (broken / "never").exists()


@pytest.mark.parametrize(
    ("command", "change", "code", "message"),
    [
        ("open", {"alice.key": "bob.key"}, 4, "m.mibao: recipients: this model is not sealed to this key"),
        ("inspect", {"alice.key": "bob.key"}, 4, "m.mibao: recipients: this model is not sealed to this key"),
        ("rewrap", {"alice.key": "bob.key"}, 4, "m.mibao: recipients: this model is not sealed to this key"),
        (
            "open",
            {"vendor.pub": "rival.pub"},
            4,
            "m.mibao: signer: this model is signed by another key than",
        ),
        ("verify", {"vendor.pub": "rival.pub"}, 4, "m.mibao: signer: this model is signed by another key than the"),
        ("verify", {"vendor.pub": "alice.pub"}, 2, "alice.pub: expected a signer's public key"),
        ("verify", {"vendor.pub": "missing.pub"}, 2, "missing.pub: expected a key file, got nothing there"),
        ("open", {"alice.key": "missing.key"}, 2, "missing.key: expected a key file, got nothing there"),
        ("open", {"alice.key": "m.mibao"}, 2, "m.mibao: expected a key file with one key in it"),
        ("open", {"alice.key": "vault:x"}, 2, "vault: there is no such file, and no package registers that name"),
        ("rewrap", {"bob.pub": "vendor.pub"}, 2, "vendor.pub: expected a recipient's public key"),
        ("rewrap", {"bob.pub": "alice.pub"}, 2, "m.mibao: recipients: the same key is given twice"),
    ],
)
def test_a_wrong_key_or_signer_is_named_in_one_line(folder, command, change, code, message):
    if not (folder / "rival.pub").exists():
        mibao("keygen", "--sign", "-o", "rival.key", folder=folder)
    before = (folder / "m.mibao").read_bytes()
    done = mibao(command, "m.mibao", *(change.get(word, word) for word in WORDS[command]), folder=folder)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert done.stderr.startswith(f"error: {message}")
    assert (folder / "m.mibao").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m.safetensors": "missing"}, "missing: No such file or directory"),
        ({"m.safetensors": "folder"}, "folder: expected a folder with at least one .safetensors file"),
        ({"m.safetensors": "bad.safetensors"}, "bad.safetensors: "),
        ({"alice.pub": "vendor.pub"}, "vendor.pub: expected a recipient's public key"),
        ({"vendor.key": "alice.key"}, "alice.key: expected a signer's private key"),
        ({"out.mibao": "m.mibao"}, "m.mibao: exists already and is not overwritten"),
        ({"out.mibao": "nowhere/out.mibao"}, "nowhere: expected a folder, and there is none"),
        ({"1": "0"}, "Invalid value for '--version'"),
        ({"acme/tiny": ""}, "m.safetensors: model id: expected 1 to 256 bytes"),
    ],
)
def test_what_cannot_be_sealed_is_named_in_one_line(broken, change, message):
    (broken / "bad.safetensors").write_bytes(b"\xff" * 40)
    words = (
        "m.safetensors", "-o", "out.mibao", "--to", "alice.pub", "--sign", "vendor.key", "--model-id", "acme/tiny",
        "--version", "1",
    )  # fmt: skip
    done = mibao("seal", *(change.get(word, word) for word in words), folder=broken)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {message}")
    assert not (broken / "out.mibao").exists()


def test_an_address_is_not_rewrapped(folder):
    for address in ("https://127.0.0.1:1/m?secret", "s3://models/m"):
        done = mibao("rewrap", address, "--key", "alice.key", "--add", "bob.pub", folder=folder)
        assert (done.returncode, "secret" in done.stderr) == (2, False)
        assert "expected a file on this machine, got an address" in done.stderr


@pytest.mark.parametrize(
    ("command", "promises"),
    [
        ("seal", ("--to", "--sign", "--model-id", "--version", "pkcs11", "kms")),
        ("open", ("--key", "--signer", "--min-version", "--state", "--require-state", "pkcs11", "s3://")),
        ("verify", ("--signer", "without a decryption key", "4 when another signer signed it")),
        ("inspect", ("--key", "No signature is checked")),
        ("rewrap", ("--add", "--remove", "cannot recall a key already held", "on this machine")),
    ],
)
def test_the_help_of_each_command_says_what_it_takes(folder, command, promises):
    done = mibao(command, "--help", folder=folder)
    shown = " ".join(done.stdout.replace("│", " ").split())
    assert done.returncode == 0
    for promise in promises:
        assert promise in shown


def test_a_bar_shows_on_a_terminal_once_the_work_has_taken_a_second():
    program = (
        "import time; from mibao.cli import seal\n"
        "with seal._progress('sealing', 100) as done:\n"
        "    done(10); time.sleep({}); done(10); time.sleep(0.2)"
    )
    shown = []
    for pause_s in (0.0, 1.05):
        ours, theirs = os.openpty()
        subprocess.run([sys.executable, "-c", program.format(pause_s)], stderr=theirs, check=True, timeout=60)
        os.close(theirs)
        shown.append(b"")
        with contextlib.suppress(OSError):  # what a terminal says once nobody is left to write to it
            while piece := os.read(ours, 4096):
                shown[-1] += piece
        os.close(ours)
    assert shown[0] == b""
    assert b"sealing" in shown[1]
