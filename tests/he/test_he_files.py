import os
import stat

import numpy as np
import pytest

from he_cases import BOTH, DATA, circuit, records_of, weights_of
from mibao.errors import InputError, IntegrityError
from mibao.he import envelope, files


@pytest.mark.parametrize("mode", [DATA, BOTH])
def test_what_the_parties_write_the_others_read(tmp_path, mode):
    compiled = circuit(mode)
    client, server = compiled.keygen()
    files.write_circuit(tmp_path / "owner.circuit", compiled)
    files.write_client_key(tmp_path / files.CLIENT_KEY_NAME, client)
    bundle, keys = files.write_server(tmp_path, server)
    files.write_bytes(tmp_path / "req", client.encrypt(records_of()))
    answer = files.read_server(bundle, keys).evaluate(files.read_bytes(tmp_path / "req"))
    logits = files.read_client_key(tmp_path / "client.key").decrypt(answer)
    assert np.max(np.abs(logits - (records_of() @ weights_of()[0] + weights_of()[1]))) < 1e-3
    assert files.read_circuit(tmp_path / "owner.circuit").to_bytes() == compiled.to_bytes()
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_a_secret_is_for_its_owners_eyes_whatever_the_umask(tmp_path):
    client, _ = circuit().keygen()
    before = os.umask(0)
    try:
        files.write_client_key(tmp_path / "client.key", client)
        files.write_circuit(tmp_path / "owner.circuit", circuit(BOTH))
    finally:
        os.umask(before)
    for name in ("client.key", "owner.circuit"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_key_that_is_there_is_never_replaced(tmp_path):
    client, _ = circuit().keygen()
    (tmp_path / "client.key").write_text("mine")
    with pytest.raises(InputError, match=r"client\.key exists already and is not overwritten"):
        files.write_client_key(tmp_path / "client.key", client)
    assert (tmp_path / "client.key").read_text() == "mine"


def test_a_secret_is_not_written_through_a_link(tmp_path):
    client, _ = circuit().keygen()
    (tmp_path / "client.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"client\.key exists already"):
        files.write_client_key(tmp_path / "client.key", client)
    assert not (tmp_path / "elsewhere").exists()


def test_nothing_that_is_there_is_replaced(tmp_path):
    files.write_bytes(tmp_path / "ans", b"mine")
    for write in (files.write_bytes, files.write_logits):
        with pytest.raises(InputError, match="ans exists already and is not overwritten"):
            write(tmp_path / "ans", b"newer")
    assert (tmp_path / "ans").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["ans"]


def test_missing_files_and_folders_are_named_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"absent: cannot be read \(No such file or directory\)"):
        files.read_bytes(tmp_path / "absent")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        files.read_bytes(tmp_path)
    with pytest.raises(InputError, match=r"ans: cannot be written \(No such file or directory\)"):
        files.write_bytes(tmp_path / "absent" / "ans", b"")


@pytest.mark.parametrize("path", ["/dev/zero", "fifo"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match=r"cannot be read \(not a regular file\)"):
        files.read_bytes(tmp_path / path)


def test_logits_are_for_the_key_holders_eyes(tmp_path):
    before = os.umask(0o022)
    try:
        files.write_logits(tmp_path / "logits.npy", b"newer")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "logits.npy").stat().st_mode) == 0o600
    assert (tmp_path / "logits.npy").read_bytes() == b"newer"


def test_a_file_larger_than_any_of_this_kind_is_not_read(tmp_path):
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(max(envelope.MAX_BYTES.values()) + 1000)
    with pytest.raises(InputError, match="is more than any file of this kind may have"):
        files.read_bytes(tmp_path / "huge")


@pytest.mark.parametrize("left", [0, 1, 9, 40, 300, -1])
def test_a_truncated_client_key_is_refused(tmp_path, left):
    client, _ = circuit().keygen()
    (tmp_path / "client.key").write_bytes(client.reveal_secret_bytes()[:left])
    with pytest.raises(IntegrityError):
        files.read_client_key(tmp_path / "client.key")
