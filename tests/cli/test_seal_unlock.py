"""`--to` and `--key` beyond key files."""

from command_line import mibao


def test_a_passphrase_and_the_environment_open_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MIBAO_PASSPHRASE", "correct horse")
    monkeypatch.setenv("MODEL_SECRET", "battery staple")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "w.bin").write_bytes(b"weights")
    assert mibao("keygen", "--sign", "-o", "vendor.key", folder=tmp_path).returncode == 0
    sealing = ("seal", "w.bin", "-o", "w.mibao", "--to", "passphrase", "--to", "env:MODEL_SECRET", "--sign")
    done = mibao(*sealing, "vendor.key", "--model-id", "m", "--version", 1, folder=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    for number, word in enumerate(("passphrase", "env:MODEL_SECRET")):
        opening = ("open", "w.mibao", "--key", word, "--signer", "vendor.pub", "-o", f"out{number}")
        assert mibao(*opening, folder=tmp_path).returncode == 0
        assert (tmp_path / f"out{number}").read_bytes() == b"weights"
    monkeypatch.setenv("MIBAO_PASSPHRASE", "wrong")
    done = mibao("open", "w.mibao", "--key", "passphrase", "--signer", "vendor.pub", "-o", "never", folder=tmp_path)
    assert (done.returncode, "the passphrase does not open this model" in done.stderr) == (4, True)


def test_without_a_terminal_or_a_variable_nothing_is_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("MIBAO_PASSPHRASE", raising=False)
    done = mibao("inspect", "w.mibao", "--key", "passphrase", folder=tmp_path)
    assert done.returncode == 2
    assert "no terminal to ask at" in done.stderr


def test_the_passphrase_of_ones_own_key_is_not_given_to_a_recipient(tmp_path, monkeypatch):
    monkeypatch.setenv("MIBAO_PASSPHRASE", "mine alone")
    monkeypatch.setenv("MODEL_SECRET", "battery staple")
    (tmp_path / "w.bin").write_bytes(b"weights")
    assert mibao("keygen", "--sign", "--passphrase", "-o", "vendor.key", folder=tmp_path).returncode == 0
    sealing = ("seal", "w.bin", "-o", "w.mibao", "--sign", "vendor.key", "--model-id", "m", "--version", 1)
    done = mibao(*sealing, "--to", "passphrase", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --to passphrase: $MIBAO_PASSPHRASE holds the passphrase of vendor.key")
    assert mibao(*sealing, "--to", "env:MODEL_SECRET", folder=tmp_path).returncode == 0
