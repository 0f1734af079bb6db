"""The chain by hand: each party its own folder and processes, joined by files only."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from he_cases import BOTH, DATA, WEIGHTS, circuit, records_of, reframed, weights_of
from mibao import he
from mibao.cli import he as commands
from mibao.errors import InputError, IntegrityError, KeyMismatch, MibaoError
from mibao.he import files
from mibao.he.envelope import Kind


def mibao(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mibao", "he", *map(str, arguments)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refusal(*arguments: str) -> BaseException | None:
    """What a command raises, for the outer edge to print; ``None`` if it succeeds."""
    error = CliRunner().invoke(commands.app, arguments).exception
    assert error is None or isinstance(error, MibaoError)
    return error


@pytest.fixture
def owner(tmp_path: Path) -> Path:
    return _folder(tmp_path, "owner")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return _folder(tmp_path, "host")


@pytest.mark.parametrize("mode", [DATA, BOTH])
def test_a_host_with_only_bundle_keys_and_request_answers_and_the_key_holder_reads(mode, owner, host):
    compiled = circuit(mode)
    files.write_circuit(owner / "my.circuit", compiled)
    np.save(owner / "in.npy", records_of())
    assert mibao("keygen", "my.circuit", "-o", ".", cwd=owner).returncode == 0
    assert mibao("encrypt", "my.circuit", "in.npy", "--key", "client.key", "-o", "req", cwd=owner).returncode == 0
    bundle = "host.bundle" if mode is BOTH else "my.circuit"
    for name in (bundle, "server.keys", "req"):
        shutil.move(owner / name, host / name) if name != bundle else shutil.copy(owner / name, host / name)
    assert sorted(path.name for path in host.iterdir()) == sorted([bundle, "server.keys", "req"])
    done = mibao("evaluate", bundle, "req", "--keys", "server.keys", "-o", "ans", cwd=host)
    assert (done.returncode, done.stderr) == (0, "")
    shutil.move(host / "ans", owner / "ans")
    before = os.umask(0o022)
    try:
        done = mibao("decrypt", "my.circuit", "ans", "--key", "client.key", "-o", "logits.npy", cwd=owner)
    finally:
        os.umask(before)
    assert (done.returncode, done.stderr) == (0, "")
    assert stat.S_IMODE((owner / "logits.npy").stat().st_mode) == 0o600
    weights, bias = weights_of()
    assert np.max(np.abs(np.load(owner / "logits.npy") - (records_of() @ weights + bias))) < 1e-3


def test_the_modes_with_encrypted_weights_hand_the_host_a_folder_without_them(owner, host):
    for mode in (WEIGHTS, BOTH):
        for left in host.iterdir():
            left.unlink()
        compiled = circuit(mode, features=8)
        client, server = compiled.keygen()
        files.write_server(host, server)
        request = (
            client.encrypt(records_of(features=8))
            if mode is BOTH
            else he.request_in_clear(compiled.spec, records_of(features=8))
        )
        files.write_bytes(host / "req", request)
        assert mibao("evaluate", "host.bundle", "req", "--keys", "server.keys", "-o", "ans", cwd=host).returncode == 0
        held = b"".join(path.read_bytes() for path in host.iterdir())
        weights, _ = weights_of(features=8)
        for values in (weights.ravel(), weights.T.ravel()):
            assert not any(value.tobytes() in held for value in values)
            singles = values.astype(np.float32)
            assert not any(singles[start : start + 2].tobytes() in held for start in range(len(singles) - 1))


def test_two_owners_and_a_host_of_neither_each_with_only_its_own_files(tmp_path, owner, host):
    """The data owner's folder never holds the weights, nor does the host's, and the model owner's no secret."""
    holder = _folder(tmp_path, "holder")
    roles = he.Roles(data_owner="patient", model_owner="vendor", compute_host="cloud")
    files.write_circuit(owner / "my.circuit", circuit(BOTH, features=8, roles=roles))
    np.save(holder / "in.npy", records_of(features=8))

    def done(folder: Path, *arguments: str) -> str:
        ran = mibao(*arguments, cwd=folder)
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout

    done(owner, "public", "my.circuit", "-o", "public.circuit")
    shutil.move(owner / "public.circuit", holder / "public.circuit")
    printed = done(holder, "keygen", "public.circuit", "-o", ".", "--account", "ward 3")
    fingerprint = printed.split("fingerprint ")[1].split(";")[0]
    shutil.copy(holder / "public.key", owner / "public.key")
    weigh = ("weights", "my.circuit", "--public-key", "public.key", "-o", "host.bundle")
    assert fingerprint in done(owner, *weigh, "--fingerprint", fingerprint)
    done(holder, "encrypt", "public.circuit", "in.npy", "--key", "client.key", "-o", "req")
    shutil.move(owner / "host.bundle", host / "host.bundle")
    for name in ("server.keys", "req"):
        shutil.move(holder / name, host / name)
    assert sorted(path.name for path in host.iterdir()) == ["host.bundle", "req", "server.keys"]
    evaluate = ("evaluate", "host.bundle", "req", "--keys", "server.keys", "-o", "ans")
    refused = mibao(*evaluate, "--account", "ward 4", cwd=host)
    assert (refused.returncode, refused.stderr) == (4, "error: server keys: made for another account\n")
    done(host, *evaluate, "--account", "ward 3")
    shutil.copy(host / "ans", holder / "ans")
    done(holder, "decrypt", "public.circuit", "ans", "--key", "client.key", "-o", "out.npy")

    weights, bias = weights_of(features=8)
    assert np.max(np.abs(np.load(holder / "out.npy") - (records_of(features=8) @ weights + bias))) < 1e-3
    assert sorted(path.name for path in owner.iterdir()) == ["my.circuit", "public.key"]
    assert (owner / "my.circuit").read_bytes().count(weights[0, 0].tobytes()) > 0
    for folder in (holder, host):
        held = b"".join(path.read_bytes() for path in folder.iterdir())
        assert not any(value.tobytes() in held for value in (*weights.ravel(), *bias))
        singles = weights.ravel().astype(np.float32)
        assert not any(singles[start : start + 2].tobytes() in held for start in range(len(singles) - 1))


def test_a_host_with_records_of_its_own_gives_them_to_encrypted_weights_as_they_are(owner, host):
    files.write_circuit(owner / "my.circuit", circuit(WEIGHTS))
    np.save(host / "in.npy", records_of())
    np.save(host / "wide.npy", np.zeros((2, 5)))
    assert mibao("keygen", "my.circuit", "-o", ".", cwd=owner).returncode == 0
    for name in ("host.bundle", "server.keys"):
        shutil.move(owner / name, host / name)
    wide = mibao("evaluate", "host.bundle", "wide.npy", "--keys", "server.keys", "-o", "ans", cwd=host)
    assert wide.returncode == 2 and "expected the shape (rows, 4)" in wide.stderr
    done = mibao("evaluate", "host.bundle", "in.npy", "--keys", "server.keys", "-o", "ans", cwd=host)
    assert (done.returncode, done.stderr) == (0, "")
    shutil.move(host / "ans", owner / "ans")
    done = mibao("decrypt", "my.circuit", "ans", "--key", "client.key", "-o", "out.npy", cwd=owner)
    assert "answers of 3 rows; for the key holder's eyes" in done.stdout
    assert np.max(np.abs(np.load(owner / "out.npy") - (records_of() @ weights_of()[0] + weights_of()[1]))) < 1e-3
    refused = mibao("encrypt", "my.circuit", str(host / "in.npy"), "--key", "client.key", "-o", "req", cwd=owner)
    assert refused.returncode == 2 and "give them to `mibao he evaluate` as they are" in refused.stderr


def test_each_wrong_use_between_two_owners_is_refused(owner, monkeypatch):
    monkeypatch.chdir(owner)
    roles = he.Roles(data_owner="patient", model_owner="vendor", compute_host="cloud")
    for number, name in enumerate(("my", "other"), start=1):
        whole = circuit(BOTH, number=number, roles=roles)
        files.write_circuit(owner / f"{name}.circuit", whole)
        files.write_bytes(owner / f"{name}.public", whole.public().to_bytes())
    assert refusal("keygen", "other.public", "-o", "theirs") is None
    assert refusal("keygen", "my.public", "-o", ".") is None
    files.write_circuit(owner / "one.circuit", circuit(BOTH))
    fingerprint = "-".join(["0000"] * 8)
    cases = [
        (("keygen", "my.circuit", "-o", "mine"), InputError, "my.circuit: holds the weights"),
        (("weights", "my.public", "--public-key", "public.key"), InputError, "the circuit without its weights"),
        (("weights", "my.circuit", "--public-key", "theirs/public.key"), KeyMismatch, "made for another circuit"),
        (("weights", "one.circuit", "--public-key", "public.key"), InputError, "nobody encrypts but the key holder"),
        (("weights", "my.circuit", "--public-key", "server.keys"), InputError, "expected public key, got server keys"),
        (
            ("weights", "my.circuit", "--public-key", "public.key", "--fingerprint", fingerprint),
            KeyMismatch,
            "another than expected",
        ),
    ]
    for arguments, kind, message in cases:
        error = refusal(*arguments, *(() if arguments[0] == "keygen" else ("-o", "out")))
        assert type(error) is kind
        assert message in str(error)
    assert not (owner / "out").exists() and not (owner / "mine").exists()


def test_explain_prints_who_could_read_what(owner):
    compiled = circuit(BOTH)
    files.write_circuit(owner / "my.circuit", compiled)
    done = mibao("explain", "my.circuit", cwd=owner)
    assert done.stdout.splitlines() == compiled.explain()


def test_a_refused_request_is_one_line_an_exit_code_and_nothing_written(host):
    client, server = circuit().keygen()
    files.write_server(host, server)
    (host / "req").write_bytes(client.encrypt(records_of())[:-1])
    before = sorted(path.name for path in host.iterdir())
    done = mibao("evaluate", "host.bundle", "req", "--keys", "server.keys", "-o", "ans", cwd=host)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: frame: truncated")
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in host.iterdir()) == before


def test_each_wrong_request_is_refused_at_the_host(host, monkeypatch):
    monkeypatch.chdir(host)
    client, server = circuit().keygen()
    stranger, _ = circuit(number=2).keygen()
    files.write_server(host, server)
    good = client.encrypt(records_of())
    cases = [
        (good[:-1] + bytes([good[-1] ^ 1]), IntegrityError, "request: its digest does not match"),
        (stranger.encrypt(records_of()), KeyMismatch, "request: made for another circuit"),
        (circuit().keygen()[0].encrypt(records_of()), KeyMismatch, "request: made under another key"),
        (server.keys_bytes(), InputError, "wrong kind of file: expected request, got server keys"),
        (
            reframed(good, Kind.REQUEST, body=lambda body: b"\xff" * len(body)),
            IntegrityError,
            "residues: one is not under its prime",
        ),
    ]
    for request, kind, message in cases:
        (host / "req").write_bytes(request)
        error = refusal("evaluate", "host.bundle", "req", "--keys", "server.keys", "-o", "ans")
        assert type(error) is kind
        assert message in str(error)
    assert not (host / "ans").exists()


def test_each_wrong_input_of_the_key_holder_is_refused(owner, monkeypatch):
    monkeypatch.chdir(owner)
    files.write_circuit(owner / "my.circuit", circuit())
    files.write_circuit(owner / "other.circuit", circuit(number=2))
    assert refusal("keygen", "my.circuit", "-o", ".") is None
    np.save(owner / "wide.npy", np.zeros((2, 5)))
    np.save(owner / "names.npy", np.array(["a", "b"]))
    (owner / "text.npy").write_text("no array")
    np.save(owner / "in.npy", records_of())
    cases = [
        (("keygen", "my.circuit", "-o", "."), InputError, "client.key exists already and is not overwritten"),
        (("keygen", "my.circuit", "-o", "in.npy"), InputError, "in.npy: cannot be made (File exists)"),
        (("encrypt", "my.circuit", "wide.npy"), InputError, "expected the shape (rows, 4)"),
        (("encrypt", "my.circuit", "names.npy"), InputError, "an array in .npy form: real numbers"),
        (("encrypt", "my.circuit", "text.npy"), InputError, "expected an array in .npy"),
        (("encrypt", "my.circuit", "absent.npy"), InputError, "No such file"),
        (("encrypt", "other.circuit", "in.npy"), KeyMismatch, "client key: made for another circuit"),
        (("decrypt", "my.circuit", "in.npy"), IntegrityError, "in.npy: no circuit, key, request or answer"),
    ]
    for arguments, kind, message in cases:
        options = () if arguments[0] == "keygen" else ("--key", "client.key", "-o", "out")
        error = refusal(*arguments, *options)
        assert type(error) is kind
        assert message in str(error)
    assert not (owner / "out").exists()


def test_a_host_starts_without_the_heavy_libraries():
    code = "import sys, mibao.he.files, mibao.cli.he; print([m for m in sys.modules if m in {!r}])".format(
        ["seal", "scipy", "sklearn", "dp_accounting", "torch", "sqlalchemy"],
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


@pytest.mark.parametrize("command", ["encrypt", "evaluate", "decrypt", "keygen"])
def test_no_command_overwrites_what_is_there(owner, command):
    files.write_circuit(owner / "my.circuit", circuit(DATA))
    np.save(owner / "records.npy", records_of())
    assert mibao("keygen", "my.circuit", "-o", ".", cwd=owner).returncode == 0
    assert mibao("encrypt", "my.circuit", "records.npy", "--key", "client.key", "-o", "req", cwd=owner).returncode == 0
    evaluate = ("evaluate", "my.circuit", "req", "--keys", "server.keys")
    assert mibao(*evaluate, "-o", "ans", cwd=owner).returncode == 0
    before = {path.name: path.read_bytes() for path in owner.iterdir()}
    done = {
        "encrypt": lambda: mibao(
            "encrypt", "my.circuit", "records.npy", "--key", "client.key", "-o", "client.key", cwd=owner
        ),
        "evaluate": lambda: mibao(*evaluate, "-o", "records.npy", cwd=owner),
        "decrypt": lambda: mibao("decrypt", "my.circuit", "ans", "--key", "client.key", "-o", "client.key", cwd=owner),
        "keygen": lambda: mibao("keygen", "my.circuit", "-o", ".", cwd=owner),
    }[command]()
    assert done.returncode == 2
    assert "exists already and is not overwritten" in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name: path.read_bytes() for path in owner.iterdir()} == before
