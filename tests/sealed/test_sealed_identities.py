"""Every kind of key opens a model through every door, and other packages bring kinds of their own."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import sealed_kit as kit
import tokens
from aws_server import aws_server
from mibao import sealed
from mibao.crypto import key_text
from mibao.crypto.keys import encode_public
from mibao.errors import InputError, KeyMismatch
from mibao.sealed import aws

OPEN = {"signer": kit.VENDOR.public}
WEIGHTS = np.arange(300.0, dtype="<f4")
PROVIDER = '''
from mibao.errors import IntegrityError, KeyMismatch
from mibao.sealed.unlock import Stanza
from mibao.types import RandomId
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
import hashlib, os


class Vault:
    """A key derived from a word: what a service on the network would keep."""

    kind = "x-acme-vault"

    def __init__(self, word):
        self._cipher = AESGCM(hashlib.sha256(word.encode()).digest())

    def wrap(self, file_key, binding):
        nonce = os.urandom(12)
        body = nonce + self._cipher.encrypt(nonce, file_key, binding.info)
        return Stanza(kind=self.kind, key_id=RandomId(os.urandom(16)), body=body)

    def unwrap(self, stanza, binding):
        try:
            return self._cipher.decrypt(stanza.body[:12], stanza.body[12:], binding.info)
        except InvalidTag as error:
            raise KeyMismatch("recipients: the vault's key does not open this model") from error
'''


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder as pip leaves it: one package that registers ``vault``, and one whose module is not there."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "acme_vault.py").write_text(PROVIDER)
    for name, target in (("acme_vault", "acme_vault:Vault"), ("acme_broken", "acme_broken:Vault")):
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
        word = name.removeprefix("acme_")
        (info / "entry_points.txt").write_text(f"[mibao.sealed.unlock]\n{word} = {target}\n")
        (info / "RECORD").write_text("")
    return folder


def run(packages, folder, *arguments):
    """The command line in a process of its own, where the packages are installed."""
    return subprocess.run(
        [sys.executable, "-m", "mibao", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(packages), "XDG_STATE_HOME": str(folder / "state")},
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_another_packages_keys_seal_and_open_on_the_command_line(packages, tmp_path):
    (tmp_path / "w.bin").write_bytes(b"weights")
    (tmp_path / "vendor.key").write_text(key_text.encode_plain(kit.VENDOR))
    (tmp_path / "vendor.pub").write_text(encode_public(kit.VENDOR.public))
    sealing = ("seal", "w.bin", "-o", "w.mibao", "--sign", "vendor.key", "--model-id", "m", "--version", 1)
    done = run(packages, tmp_path, *sealing, "--to", "vault:horse")
    assert (done.returncode, done.stderr) == (0, "")
    opening = ("open", "w.mibao", "--signer", "vendor.pub")
    done = run(packages, tmp_path, *opening, "--key", "vault:horse", "-o", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_bytes() == b"weights"
    done = run(packages, tmp_path, *opening, "--key", "vault:zebra", "-o", "never")
    assert (done.returncode, done.stderr) == (
        4,
        "error: w.mibao: recipients: the vault's key does not open this model\n",
    )
    for word, message in (
        ("none", "none: there is no such file, and no package registers that name in mibao.sealed.unlock"),
        ("broken", "broken: acme-broken cannot be loaded (ModuleNotFoundError)"),
    ):
        done = run(packages, tmp_path, *opening, "--key", f"{word}:zebra", "-o", "never")
        assert (done.returncode, done.stderr) == (2, f"error: {message}\n")
    assert not (tmp_path / "never").exists()


def test_another_packages_keys_open_from_python(packages, tmp_path):
    (tmp_path / "w.bin").write_bytes(b"weights")
    program = f"""
        from mibao import sealed
        from mibao.crypto import key_text

        vendor = key_text.decode_private({key_text.encode_plain(kit.VENDOR)!r})
        recipients = [sealed.recipient("vault:horse")]
        sealed.seal("w.bin", "w.mibao", recipients=recipients, signer=vendor, model_id="m", version=1)
        found = sealed.open_bytes("w.mibao", identity=sealed.identity("vault:horse"), signer=vendor.public)
        print(found.decode(), [kind for kind, _ in sealed.inspect("w.mibao").recipients])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": str(packages)},
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("weights ['x-acme-vault']\n", "")


def test_two_packages_of_one_name_are_refused(packages, tmp_path, monkeypatch):
    info = tmp_path / "other_vault-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-vault\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mibao.sealed.unlock]\nvault = other_vault:Vault\n")
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"^vault: registered in mibao.sealed.unlock more than once: .*other-vault"):
        sealed.identity("vault:horse")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory, packages):
    """For each kind of key, whom to seal to and who opens, by the words of the command line."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "alice.key").write_text(f"# a comment\n{key_text.encode_plain(kit.ALICE)}\n")
    (folder / "alice.pub").write_text(encode_public(kit.ALICE.public) + "\n")
    with (
        tokens.softhsm(folder) as library,
        aws_server(),
        pytest.MonkeyPatch.context() as patch,
    ):
        client = aws.aws_client("kms")
        client.create_alias(AliasName="alias/models", TargetKeyId=client.create_key()["KeyMetadata"]["KeyId"])
        patch.setenv("MODEL_KEY", key_text.encode_plain(kit.BOB))
        patch.setenv("MODEL_PUBLIC", encode_public(kit.BOB.public))
        patch.syspath_prepend(str(packages))
        token = f"pkcs11:token={tokens.LABEL};object=models?module-path={library}&pin-source=env:MODEL_PIN"
        yield {
            "key file": (sealed.recipient(folder / "alice.pub"), sealed.identity(folder / "alice.key")),
            "passphrase": (sealed.Passphrase("correct horse", log_n=14), sealed.Passphrase("correct horse")),
            "environment": (sealed.recipient("env:MODEL_PUBLIC"), sealed.identity("env:MODEL_KEY")),
            "PKCS#11": (sealed.recipient(token), sealed.identity(token)),
            "KMS": (sealed.recipient("kms:alias/models"), sealed.identity("kms:alias/models")),
            "another's": (sealed.recipient("vault:horse"), sealed.identity("vault:horse")),
        }


def by_model(path, identity):
    with sealed.open_model(path, identity=identity, **OPEN) as model:
        return model["w"].numpy().copy()


def by_safe_open(path, identity):
    with sealed.safe_open(path, "np", identity=identity, **OPEN) as file:
        return file.get_tensor("w")


DOORS = {
    "open_model": by_model,
    "safe_open": by_safe_open,
    "load_torch": lambda path, identity: sealed.load_torch(path, identity=identity, **OPEN)["w"].numpy(),
    "open_bytes": lambda path, identity: np.frombuffer(
        sealed.open_bytes(path, identity=identity, **OPEN)[-WEIGHTS.nbytes :], "<f4"
    ),
}


@pytest.mark.parametrize("kind", ["key file", "passphrase", "environment", "PKCS#11", "KMS", "another's"])
def test_each_kind_of_key_opens_through_each_door(kinds, tmp_path, kind):
    from safetensors.numpy import save_file

    recipient, identity = kinds[kind]
    save_file({"w": WEIGHTS}, tmp_path / "w.safetensors")
    path = tmp_path / "w.mibao"
    sealed.seal(tmp_path / "w.safetensors", path, recipients=[recipient], signer=kit.VENDOR, model_id="m")
    for door in DOORS.values():
        assert np.array_equal(door(path, identity), WEIGHTS)
        with pytest.raises(KeyMismatch):
            door(path, kit.MALLORY)


def test_a_signer_and_a_protected_key_come_from_their_files(tmp_path):
    (tmp_path / "vendor.pub").write_text(encode_public(kit.VENDOR.public) + "\n")
    for text in (tmp_path / "vendor.pub", encode_public(kit.VENDOR.public)):
        assert sealed.signer(text).key_id == kit.VENDOR.key_id
    assert sealed.recipient(encode_public(kit.ALICE.public)).key_id == kit.ALICE.key_id
    protected = key_text.encode_protected(kit.ALICE, passphrase="horse", salt=b"s" * 16, nonce=b"n" * 12, log_n=14)
    (tmp_path / "alice.key").write_text(protected)
    assert sealed.identity(tmp_path / "alice.key", passphrase="horse").key_id == kit.ALICE.key_id
    with pytest.raises(KeyMismatch, match=r"alice.key: private key: the passphrase does not open it$"):
        sealed.identity(tmp_path / "alice.key", passphrase="zebra")
    with pytest.raises(InputError, match="expected with a private key's file"):
        sealed.identity("kms:alias/models", passphrase="horse")


@pytest.mark.parametrize(
    ("make", "content", "message"),
    [
        (sealed.identity, None, r"/k: No such file or directory$"),
        (sealed.identity, "", r"/k: expected a key file with one key in it"),
        (sealed.identity, "x" * 20000, r"/k: expected a key file with one key in it"),
        (
            sealed.identity,
            key_text.encode_plain(kit.VENDOR),
            r"/k: .* private key, got a signer's$",
        ),
        (sealed.identity, encode_public(kit.ALICE.public), r"/k: expected a private key"),
        (sealed.recipient, encode_public(kit.VENDOR.public), r"/k: .*recipient"),
        (sealed.recipient, key_text.encode_plain(kit.ALICE), r"/k: .*private key"),
        (sealed.signer, encode_public(kit.ALICE.public), r"/k: .*signer"),
    ],
)
def test_a_file_without_the_key_asked_for_is_named(tmp_path, make, content, message):
    if content is not None:
        (tmp_path / "k").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        make(tmp_path / "k")
    assert not content or content not in str(caught.value)


def test_a_private_key_in_place_of_its_file_is_not_repeated():
    with pytest.raises(InputError, match=r"^expected the name of a key file, got the text of a private key$"):
        sealed.identity(key_text.encode_plain(kit.ALICE))
