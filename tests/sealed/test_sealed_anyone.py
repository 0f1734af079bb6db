"""Opening without a signer: what is still checked, and what the name of the function warns of."""

import numpy as np
import pytest

import sealed_kit as kit
from mibao import sealed
from mibao.errors import InputError, IntegrityError, KeyMismatch


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "m.mibao"
    path.write_bytes(kit.sealed_bytes())
    return path


def test_tensors_come_out_without_any_signer(path):
    with sealed.open_model_from_anyone(path, identity=kit.ALICE) as model:
        assert np.array_equal(model["bias"].numpy(), kit.tensors()["bias"])
        assert (model.model_id, model.version, model.signer) == ("acme/tiny", 3, None)
    with sealed.open_model(path, identity=kit.ALICE, signer=kit.VENDOR.public) as model:
        assert model.signer == model.event.signer == kit.VENDOR.key_id


def test_it_is_no_opening_that_a_ledger_could_record(path):
    with (
        sealed.open_model_from_anyone(path, identity=kit.ALICE) as model,
        pytest.raises(InputError, match="opened without a signer"),
    ):
        _ = model.event


def test_a_signature_of_nobody_is_not_noticed(path):
    """As the name and the documentation say."""
    data = bytearray(path.read_bytes())
    manifest_bytes = int.from_bytes(data[16:20], "big")
    data[128 + manifest_bytes + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="signature"):
        sealed.open_model(path, identity=kit.ALICE, signer=kit.VENDOR.public)
    sealed.open_model_from_anyone(path, identity=kit.ALICE).close()


def test_damage_is_still_found(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with (
        sealed.open_model_from_anyone(path, identity=kit.ALICE) as model,
        pytest.raises(IntegrityError, match="was altered"),
    ):
        model.load_numpy()


def test_a_key_is_still_needed(path):
    with pytest.raises(KeyMismatch, match="not sealed to this key"):
        sealed.open_model_from_anyone(path, identity=kit.MALLORY)
