"""Frozen files of each released format open forever, and their faults are found forever."""

import hashlib
import json
from pathlib import Path

import pytest

import sealed_kit as kit
from mibao import errors, sealed
from mibao.crypto import keys
from mibao.crypto.keys import RecipientSuite

FOLDER = Path(__file__).parents[1] / "vectors" / "compat" / "sealed"
FROZEN = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
FAULTS = [(name, fault) for name, frozen in FROZEN.items() for fault in frozen["faults"]]


def opened(name: str, data: bytes) -> list[bytes]:
    frozen = FROZEN[name]
    identity = keys.generate_recipient(
        RecipientSuite(frozen["recipient_suite"]), bytes.fromhex(frozen["recipient_seed"])
    )
    return kit.opened_parts(data, identity=identity, pinned=keys.decode_signer(frozen["signer"]))


def test_there_are_frozen_files():
    assert {"file-v1", "folder-v1", "blob-v1"} <= FROZEN.keys()


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_file_opens(name):
    found = opened(name, (FOLDER / f"{name}.mibao").read_bytes())
    assert [hashlib.sha256(each).hexdigest() for each in found] == list(FROZEN[name]["parts"].values())
    facts = sealed.inspect(FOLDER / f"{name}.mibao")
    assert (facts.model_id, facts.version) == (FROZEN[name]["model_id"], FROZEN[name]["version"])


@pytest.mark.parametrize(("name", "fault"), FAULTS, ids=[f"{name} {fault['fault']}" for name, fault in FAULTS])
def test_a_fault_in_a_frozen_file_is_found(name, fault):
    data = bytearray((FOLDER / f"{name}.mibao").read_bytes())
    data[fault["at"]] ^= fault["xor"]
    with pytest.raises(errors.MibaoError) as caught:
        opened(name, bytes(data))
    assert (type(caught.value).__name__, str(caught.value)) == (fault["error"], fault["message"])
