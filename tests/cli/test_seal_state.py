"""`mibao open` and `verify` refuse an older model the second time, unless told otherwise by name."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from command_line import mibao
from mibao.cli.keys_io import read_recipient_private, read_signer_private
from mibao.crypto import key_text
from mibao.crypto.keys import SignerPrivateKey

PROTECTED = "correct horse"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Versions 1 and 2 of a model, another version 2, and protected keys of Alice and the vendor."""
    folder = tmp_path_factory.mktemp("commands")
    for arguments in (("-o", "alice.key"), ("--sign", "-o", "vendor.key"), ("-o", "plain.key")):
        assert mibao("keygen", *arguments, folder=folder).returncode == 0
    for key in (read_recipient_private(folder / "alice.key"), read_signer_private(folder / "vendor.key")):
        name = "vendor.key" if isinstance(key, SignerPrivateKey) else "alice.key"
        text = key_text.encode_protected(key, passphrase=PROTECTED, salt=bytes(16), nonce=bytes(12), log_n=14)
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIBAO_PASSPHRASE", PROTECTED)
        for name, version in (("one", 1), ("two", 2), ("other-two", 2)):
            save_file({"w": np.full(300, version)}, folder / f"{name}.safetensors")
            done = seal(folder, name, version)
            assert (done.returncode, done.stderr) == (0, "")
    return folder


def seal(folder, name: str, version: int, *more: object, to: str = ""):
    return mibao(
        "seal", f"{name}.safetensors", "-o", to or f"{name}.mibao", "--to", "alice.pub", "--to", "plain.pub",
        "--sign", "vendor.key", "--model-id", "acme/tiny", "--version", version, *more, folder=folder,
    )  # fmt: skip


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "mibao" / "sealed-versions"


def open_(folder, name: str, *more: object, key: str = "plain.key"):
    (folder / "out").unlink(missing_ok=True)
    return mibao("open", f"{name}.mibao", "--key", key, "--signer", "vendor.pub", "-o", "out", *more, folder=folder)


def verify(folder, name: str, *more: object):
    return mibao("verify", f"{name}.mibao", "--signer", "vendor.pub", *more, folder=folder)


def test_an_older_model_is_refused_the_second_time(folder, home):
    assert open_(folder, "one").returncode == 0
    done = open_(folder, "two")
    assert done.returncode == 0
    assert f"older versions are refused from now on: {home}" in done.stdout
    done = open_(folder, "one")
    assert (done.returncode, done.stderr) == (
        1,
        "error: one.mibao: version: this model is older than one that was opened before (1, version 2 was)\n",
    )
    assert not (folder / "out").exists()
    assert verify(folder, "one").returncode == 1
    assert verify(folder, "two").returncode == 0


def test_a_second_model_of_one_version_is_refused(folder, home):
    assert open_(folder, "two").returncode == 0
    for done in (open_(folder, "other-two"), verify(folder, "other-two")):
        assert (done.returncode, done.stderr) == (
            1,
            "error: other-two.mibao: version: another model of this version was opened before (2): "
            "its signer has signed two\n",
        )


def test_a_state_of_another_name_is_another_memory(folder, home):
    assert open_(folder, "two", "--state", "mine").returncode == 0
    assert (folder / "mine").exists()
    assert not home.exists()
    assert open_(folder, "one", "--state", "mine").returncode == 1
    assert open_(folder, "one").returncode == 0


def test_a_first_open_is_refused_on_demand(folder, home):
    for done in (open_(folder, "two", "--require-state"), verify(folder, "two", "--require-state")):
        assert done.returncode == 1
        assert done.stderr.startswith("error: state: no version of this model was opened before, and one is required")
    assert not home.exists()
    assert open_(folder, "two").returncode == 0
    assert open_(folder, "two", "--require-state").returncode == 0
    assert verify(folder, "two", "--require-state").returncode == 0


def test_rollback_is_accepted_only_by_that_name(folder, home):
    assert open_(folder, "two").returncode == 0
    kept = home.read_bytes()
    for older in ("one", "other-two"):
        assert open_(folder, older, "--accept-rollback").returncode == 0
        assert verify(folder, older, "--accept-rollback").returncode == 0
    assert home.read_bytes() == kept
    done = open_(folder, "one", "--accept-rollback", "--state", "mine")
    assert done.returncode == 2
    assert "neither --state nor --require-state goes with it" in done.stderr
    assert open_(folder, "one", "--accept-rollback", "--min-version", 2).returncode == 1


def test_a_damaged_state_stops_open_and_verify(folder, home):
    home.parent.mkdir()
    home.write_text("{}")
    for done in (open_(folder, "two"), verify(folder, "two")):
        assert (done.returncode, done.stderr) == (
            1,
            f"error: state: damaged, or not one of mibao's files: {home}\n",
        )
    assert not (folder / "out").exists()


# Protected keys: `seal` signs with one, the others open with one.
WITH_ALICE = {
    "open": ("open", "two.mibao", "--key", "alice.key", "--signer", "vendor.pub", "-o", "opened"),
    "inspect": ("inspect", "two.mibao", "--key", "alice.key"),
    "rewrap": ("rewrap", "copy.mibao", "--key", "alice.key", "--remove", "plain.pub"),
    "seal": (
        "seal", "one.safetensors", "-o", "opened", "--to", "alice.pub", "--sign", "vendor.key", "--model-id", "m",
        "--version", 1,
    ),
}  # fmt: skip


@pytest.fixture
def ready(folder, home):
    (folder / "opened").unlink(missing_ok=True)
    (folder / "copy.mibao").write_bytes((folder / "two.mibao").read_bytes())
    return folder


@pytest.mark.parametrize("command", WITH_ALICE.values(), ids=WITH_ALICE)
def test_a_protected_key_takes_its_passphrase_from_the_environment(ready, monkeypatch, command):
    monkeypatch.setenv("MIBAO_PASSPHRASE", PROTECTED)
    for more in ((), ("--passphrase",)):
        assert mibao(*command, *more, folder=ready).returncode == 0
        (ready / "opened").unlink(missing_ok=True)
        (ready / "copy.mibao").write_bytes((ready / "two.mibao").read_bytes())


@pytest.mark.parametrize("command", WITH_ALICE.values(), ids=WITH_ALICE)
def test_a_protected_key_asks_for_its_passphrase_when_told_to(ready, monkeypatch, command):
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or PROTECTED)
    done = mibao(*command, "--passphrase", folder=ready)
    assert (done.returncode, done.stderr, asked) == (0, "", ["Passphrase: "])


@pytest.mark.parametrize("command", WITH_ALICE.values(), ids=WITH_ALICE)
def test_nothing_is_asked_unless_told_to(ready, monkeypatch, command):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: pytest.fail("asked"))
    done = mibao(*command, folder=ready)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "it is protected; give its passphrase with --passphrase" in done.stderr


@pytest.mark.parametrize("stdin", ["closed", "no terminal"])
@pytest.mark.parametrize("command", WITH_ALICE.values(), ids=WITH_ALICE)
def test_without_a_terminal_the_passphrase_must_be_in_the_environment(ready, monkeypatch, command, stdin):
    if stdin == "closed":
        monkeypatch.setattr("sys.stdin", None)
    done = mibao(*command, "--passphrase", folder=ready)
    assert (done.returncode, done.stderr) == (
        2,
        "error: passphrase: no terminal to ask at; set MIBAO_PASSPHRASE instead\n",
    )
    assert not (ready / "opened").exists()


def test_a_wrong_passphrase_is_told_apart(ready, monkeypatch):
    monkeypatch.setenv("MIBAO_PASSPHRASE", "wrong")
    done = mibao(*WITH_ALICE["open"], "--passphrase", folder=ready)
    assert (done.returncode, done.stderr) == (4, "error: alice.key: private key: the passphrase does not open it\n")


def test_a_passphrase_for_a_key_without_one_is_not_asked_for(ready):
    done = open_(ready, "two", "--passphrase")
    assert (done.returncode, done.stderr) == (
        2,
        "error: plain.key: is not protected by a passphrase: leave out --passphrase\n",
    )


def test_inspect_without_a_key_needs_no_passphrase(ready):
    done = mibao("inspect", "two.mibao", "--passphrase", folder=ready)
    assert (done.returncode, done.stderr) == (2, "error: --passphrase: expected with --key, whose passphrase it is\n")
