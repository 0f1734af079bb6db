"""Step 3: the model sealed to one recipient and signed, opened again, and attacked three times."""

from __future__ import annotations

from pathlib import Path

from mibao import sealed
from mibao.crypto import key_text, keys
from mibao.crypto.keys import RecipientPrivateKey, RecipientSuite, SignerPrivateKey, SignerPublicKey, SignerSuite
from mibao.demo.model import LinearModel
from mibao.demo.outcome import Cost, SealedModel
from mibao.demo.surroundings import Surroundings
from mibao.errors import MibaoError
from mibao.events import Event, ModelRefused

MODEL_NAME = "model.safetensors"
SEALED_NAME = "model.mibao"
RECIPIENT_KEY_NAME = "recipient.key"
SIGNER_NAME = "vendor.pub"
OPENED_NAME = "model.opened.safetensors"


def seal_and_attack(around: Surroundings, model: LinearModel) -> tuple[LinearModel, SealedModel, Cost, list[Event]]:
    """The model as it came back from its sealed file, and which of three attacks were refused."""
    recipient, stranger = (_recipient(around) for _ in range(2))
    vendor, other_vendor = (_signer(around) for _ in range(2))
    plain, sealed_path, opened = (around.folder / name for name in (MODEL_NAME, SEALED_NAME, OPENED_NAME))
    around.keep_secret(RECIPIENT_KEY_NAME, key_text.encode_plain(recipient))
    (around.folder / SIGNER_NAME).write_text(keys.encode_public(vendor.public) + "\n", encoding="ascii")
    data = model.to_safetensors()
    plain_seconds = around.timed(lambda: (plain.write_bytes(data), plain.read_bytes()))
    started = around.clock_s()
    report = sealed.seal(
        plain, sealed_path, recipients=[recipient.public], signer=vendor, model_id="mibao-demo", version=1
    )
    opening = sealed.open_sealed(sealed_path, opened, identity=recipient, signer=vendor.public)
    seconds = around.clock_s() - started
    attempts = (
        _refusal(_with_flipped_byte(sealed_path), recipient, vendor.public),
        _refusal(sealed_path, stranger, vendor.public),
        _refusal(sealed_path, recipient, other_vendor.public),
    )
    refused = [attempt for attempt in attempts if attempt is not None]
    found = SealedModel(
        byte_identical=opened.read_bytes() == data,
        refused=tuple(event.reason for event in refused),
        recipient_suite="ML-KEM-768 + X25519",
        signer_suite="Ed25519",
    )
    cost = Cost(
        protection="Sealed model",
        plain_seconds=plain_seconds,
        protected_seconds=seconds,
        plain_bytes=len(data),
        protected_bytes=sealed_path.stat().st_size,
    )
    events: list[Event] = [report.event, opening.event, *refused]
    return LinearModel.from_safetensors(opened.read_bytes()), found, cost, events


def _recipient(around: Surroundings) -> RecipientPrivateKey:
    suite = RecipientSuite.MLKEM768_X25519
    return keys.generate_recipient(suite, around.randomness(keys.SEED_BYTES[suite]))


def _signer(around: Surroundings) -> SignerPrivateKey:
    suite = SignerSuite.ED25519
    return keys.generate_signer(suite, around.randomness(keys.SEED_BYTES[suite]))


def _with_flipped_byte(path: Path) -> Path:
    altered = path.with_suffix(".altered" + path.suffix)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    altered.write_bytes(content)
    return altered


def _refusal(path: Path, identity: RecipientPrivateKey, signer: SignerPublicKey) -> ModelRefused | None:
    """The record of why the file was not opened; ``None`` if it was, or if a refusal left something behind."""
    target = path.with_name("must-not-exist")
    try:
        sealed.open_sealed(path, target, identity=identity, signer=signer)
    except MibaoError as error:
        return None if target.exists() else sealed.refusal(error)
    return None
