import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mibao.cli import keys_io
from mibao.crypto.keys import RecipientSuite, SignerSuite
from mibao.errors import InputError, KeyMismatch


def mibao(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mibao", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("options", "suite"),
    [
        ([], RecipientSuite.MLKEM768_X25519),
        (["--suite", "x25519"], RecipientSuite.X25519),
        (["--sign"], SignerSuite.ED25519),
        (["--sign", "--suite", "ed25519-mldsa65"], SignerSuite.ED25519_MLDSA65),
    ],
)
def test_keygen_writes_a_pair_that_reads_back(
    options: list[str], suite: RecipientSuite | SignerSuite, tmp_path: Path
) -> None:
    result = mibao("keygen", "-o", "alice.key", *options, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert files(tmp_path) == ["alice.key", "alice.pub"]
    assert stat.S_IMODE((tmp_path / "alice.key").stat().st_mode) == 0o600
    public_text = (tmp_path / "alice.pub").read_text()
    if isinstance(suite, SignerSuite):
        private, public = keys_io.read_signer_private(tmp_path / "alice.key"), keys_io.read_signer_public
    else:
        private, public = keys_io.read_recipient_private(tmp_path / "alice.key"), keys_io.read_recipient_public
    assert private.suite is suite
    assert public(str(tmp_path / "alice.pub")) == public(public_text) == private.public
    secret_line = (tmp_path / "alice.key").read_text().splitlines()[-1]
    assert secret_line.rsplit(".", 1)[-1] not in result.stdout


def test_an_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    for taken in ("alice.key", "alice.pub"):
        (tmp_path / taken).write_text("mine")
        result = mibao("keygen", "-o", "alice.key", cwd=tmp_path)
        assert result.returncode == 2
        assert result.stderr.startswith(f"error: {taken} exists already")
        assert files(tmp_path) == [taken]
        (tmp_path / taken).unlink()


def test_a_passphrase_protects_and_a_wrong_one_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = mibao("keygen", "-o", "v.key", "--sign", "--passphrase", cwd=tmp_path, MIBAO_PASSPHRASE="correct horse")
    assert made.returncode == 0, made.stderr
    assert "correct horse" not in made.stdout + (tmp_path / "v.key").read_text()
    assert keys_io.read_signer_private(tmp_path / "v.key", "correct horse").suite is SignerSuite.ED25519
    monkeypatch.setenv(keys_io.ENVIRONMENT_VARIABLE, "wrong")
    with pytest.raises(KeyMismatch, match="passphrase does not open it"):
        keys_io.read_signer_private(tmp_path / "v.key")


WRONG = {
    "a passphrase without a terminal": (["--passphrase"], 2, "error: passphrase: no terminal to ask at"),
    "a signer's suite for a recipient": (
        ["--suite", "ed25519"],
        2,
        "error: --suite: expected x25519 or mlkem768-x25519",
    ),
    "a recipient's suite for a signer": (["--sign", "--suite", "x25519"], 2, "error: --suite: expected ed25519 or"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_line_and_writes_nothing(case: str, tmp_path: Path) -> None:
    options, code, line = WRONG[case]
    result = mibao("keygen", "-o", "alice.key", *options, cwd=tmp_path)
    assert result.returncode == code
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1
    assert files(tmp_path) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = mibao("keygen", "-o", "nowhere/alice.key", cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "nowhere/alice.key" in result.stderr


def test_key_files_that_are_not_are_refused(tmp_path: Path) -> None:
    mibao("keygen", "-o", "alice.key", cwd=tmp_path)
    whole = (tmp_path / "alice.key").read_text()
    cases = {
        "missing.key": (None, "got nothing there"),
        "truncated.key": (whole[:-9], "damaged or cut short"),
        "empty.key": ("", "truncated"),
        "two.key": (whole + whole, "one key in it"),
        "huge.key": ("#" * 20_000, "one key in it"),
        "binary.key": ("\xff\xfe", "got something else"),
        "public.key": ((tmp_path / "alice.pub").read_text(), "expected a private key"),
    }
    for name, (content, reason) in cases.items():
        if content is not None:
            (tmp_path / name).write_text(content, encoding="latin-1")
        with pytest.raises(InputError, match=reason):
            keys_io.read_recipient_private(tmp_path / name)
    with pytest.raises(InputError, match="expected a signer's private key, got a recipient's"):
        keys_io.read_signer_private(tmp_path / "alice.key")
    with pytest.raises(InputError, match="expected a signer's public key, got a key of type 'recipient'"):
        keys_io.read_signer_public(str(tmp_path / "alice.pub"))


def test_commands_work_with_a_closed_standard_input(tmp_path: Path) -> None:
    for arguments, expected in (("--version", "mibao 0."), ("--help", "keygen"), ("keygen -o a.key", "a.pub")):
        done = subprocess.run(
            ["/bin/sh", "-c", f"exec {sys.executable} -m mibao {arguments} <&-"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert expected in done.stdout


@pytest.mark.parametrize("name", ["密钥.key", "clé.key", "a\nb.key", "with space", "b[red].key"])
def test_a_key_file_of_any_name_is_read_back_and_shown_as_it_is(name: str, tmp_path: Path) -> None:
    result = mibao("keygen", "-o", name, "--sign", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert name in result.stdout
    private = keys_io.read_signer_private(tmp_path / name)
    assert keys_io.read_signer_public(str((tmp_path / name).with_suffix(".pub"))) == private.public


@pytest.mark.parametrize("name", [".", "/", ".."])
def test_a_name_that_names_no_file_is_refused(name: str, tmp_path: Path) -> None:
    result = mibao("keygen", "-o", name, cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "expected a name for the private key" in result.stderr
    assert files(tmp_path) == []


def test_a_private_key_pasted_where_its_file_belongs_is_not_repeated(tmp_path: Path) -> None:
    mibao("keygen", "-o", "v.key", "--sign", cwd=tmp_path)
    secret = (tmp_path / "v.key").read_text().splitlines()[-1]
    result = mibao(
        *[
            "seal",
            "x.safetensors",
            "-o",
            "x.mibao",
            "--to",
            secret,
            "--sign",
            secret,
            "--model-id",
            "x",
            "--version",
            "1",
        ],
        cwd=tmp_path,
    )
    assert result.returncode == 2
    assert secret.rsplit(".", 1)[-1] not in result.stdout + result.stderr


def test_a_passphrase_in_the_environment_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    environment = {**os.environb, b"MIBAO_PASSPHRASE": b"geheim\xff"}
    result = subprocess.run(
        [sys.executable, "-m", "mibao", "--debug", "keygen", "-o", "a.key", "--passphrase"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "error: passphrase: expected text in UTF-8" in result.stderr
    assert "geheim" not in result.stderr
    assert files(tmp_path) == []
