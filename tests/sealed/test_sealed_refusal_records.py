"""Every error of an opening becomes a record with the reason that a reader of the ledger would give it."""

import ast
import importlib
from pathlib import Path

import pytest

import sealed_kit as kit
from mibao import sealed
from mibao.errors import InputError, IntegrityError, MibaoError, MissingExtra, ProtocolError
from mibao.events import ModelRefused
from mibao.sealed import recipients, refusals
from mibao.sealed.source_https import HttpsSource
from mibao.sealed.unlock import Binding
from mibao.sealed.unlock_environment import identity_from_environment
from mibao.sealed.unlock_passphrase import Passphrase
from mibao.sealed.unlock_pkcs11 import TokenKey
from mibao.types import RandomId, Refusal
from sealed_faults import GOOD, KEYS, flipped

OPEN = {"identity": kit.ALICE, "signer": kit.VENDOR.public}
BINDING = Binding(file_id=KEYS.file_id, commitment=KEYS.commitment, signer=kit.VENDOR.key_id)
FOLDER = Path(refusals.__file__).parent


@pytest.fixture
def path(tmp_path):
    (tmp_path / "m.mibao").write_bytes(GOOD)
    return tmp_path / "m.mibao"


def reason(load) -> Refusal:
    with pytest.raises(MibaoError) as caught:
        load()
    event = sealed.refusal(caught.value)
    assert isinstance(event, ModelRefused)
    return event.reason


@pytest.mark.parametrize(
    ("data", "more", "expected"),
    [
        (flipped(len(GOOD) - 1), {}, Refusal.ALTERED),
        (flipped(40), {}, Refusal.ALTERED),
        (GOOD[:-1], {}, Refusal.ALTERED),
        (GOOD, {"identity": kit.MALLORY}, Refusal.WRONG_KEY),
        (GOOD, {"signer": kit.RIVAL.public}, Refusal.WRONG_SIGNER),
        (GOOD, {"min_version": 4}, Refusal.OLDER_VERSION),
        (b"GGUF", {}, Refusal.NOT_SEALED),
        (flipped(9), {}, Refusal.NOT_SEALED),
        (flipped(15), {}, Refusal.NOT_SEALED),
    ],
)
def test_what_is_wrong_with_a_file_has_its_reason(path, data, more, expected):
    path.write_bytes(data)
    assert reason(lambda: sealed.open_sealed(path, None, **(OPEN | more))) is expected


def test_versions_known_to_a_state_have_theirs(path, tmp_path):
    state = sealed.VersionState(tmp_path / "state")
    unknown = sealed.VersionState(tmp_path / "other", require_known=True)
    assert reason(lambda: sealed.open_sealed(path, None, **OPEN, state=unknown)) is Refusal.UNKNOWN_VERSION
    sealed.open_sealed(path, None, **OPEN, state=state)
    path.write_bytes(kit.sealed_bytes(file_id=b"J" * 16))
    assert reason(lambda: sealed.open_sealed(path, None, **OPEN, state=state)) is Refusal.EQUIVOCATION
    path.write_bytes(kit.sealed_bytes(version=2))
    assert reason(lambda: sealed.open_sealed(path, None, **OPEN, state=state)) is Refusal.OLDER_VERSION
    state.path.write_bytes(b"{}")
    assert reason(lambda: sealed.open_sealed(path, None, **OPEN, state=state)) is Refusal.UNREACHABLE


def test_storage_and_keys_that_cannot_be_had_are_unreachable(path, tmp_path, monkeypatch):
    monkeypatch.delenv("MODEL_KEY", raising=False)
    token = TokenKey(module=str(tmp_path / "none.so"), pin=None, token="t", label="k")
    for load in (
        lambda: sealed.open_model(tmp_path / "missing", **OPEN),
        lambda: HttpsSource("https://127.0.0.1:1/m", attempts=1),
        lambda: sealed.open_model("http://127.0.0.1/m", **OPEN),
        lambda: identity_from_environment("MODEL_KEY"),
        lambda: token.wrap(bytes(32), BINDING),
        lambda: sealed.open_sealed(path, tmp_path / "none" / "out", **OPEN),
    ):
        assert reason(load) is Refusal.UNREACHABLE


def test_a_folder_is_not_sealed_and_a_wrong_use_is_called_one(path, tmp_path):
    assert reason(lambda: sealed.open_model(tmp_path, **OPEN)) is Refusal.NOT_SEALED
    assert reason(lambda: sealed.safe_open(path, "jax", **OPEN)) is Refusal.WRONG_USE
    assert sealed.refusal(MissingExtra("x", extra="torch")).reason is Refusal.WRONG_USE
    assert sealed.refusal(ProtocolError("S3: no answer")).reason is Refusal.UNREACHABLE
    assert sealed.refusal(IntegrityError("data: chunk 0 was altered")).reason is Refusal.ALTERED
    many = [recipients.Stanza(kind="scrypt", key_id=RandomId(bytes([each]) * 16), body=b"") for each in range(9)]
    assert reason(lambda: recipients.unwrap(many, Passphrase("p"), BINDING)) is Refusal.NOT_SEALED


PLACES = (
    "source_places", "source_s3", "aws", "unlock_kms", "unlock_pkcs11", "unlock_environment", "state", "state_file",
)  # fmt: skip
FILLED = {"service": "S3", "region": "manifest"}
# What an ``InputError`` of each module says about the model that was to be opened; of the others nothing.
REASONS = {
    "layout": {Refusal.NOT_SEALED},
    "recipients": {Refusal.NOT_SEALED, Refusal.WRONG_USE},
    "unlock_passphrase": {Refusal.NOT_SEALED, Refusal.WRONG_USE},
    "source_https": {Refusal.UNREACHABLE, Refusal.WRONG_USE},  # the second: a file of authorities without any
    "files": {Refusal.NOT_SEALED, Refusal.UNREACHABLE, Refusal.WRONG_USE},
    **{module: {Refusal.UNREACHABLE} for module in PLACES},
}


def filled(value: ast.expr) -> str:
    return value.value if isinstance(value, ast.Constant) else FILLED.get(ast.unparse(value.value), "7")


def raised(module: str):
    """The text of each ``raise InputError(...)``, what is filled in at run time replaced."""
    for node in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id="InputError"), args=[ast.Constant(value=str(text))])):
                yield text
            case ast.Raise(exc=ast.Call(func=ast.Name(id="InputError"), args=[ast.Name(id=name)])):
                yield getattr(importlib.import_module(f"mibao.sealed.{module}"), name)
            case ast.Raise(exc=ast.Call(func=ast.Name(id="InputError"), args=[ast.JoinedStr(values=values)])):
                yield "".join(filled(each) for each in values)


@pytest.mark.parametrize("module", sorted(each.stem for each in FOLDER.glob("*.py")))
def test_no_error_of_a_module_gets_a_reason_that_it_cannot_have(module):
    found = {text: sealed.refusal(InputError(text)).reason for text in raised(module)}
    assert set(found.values()) <= REASONS.get(module, {Refusal.WRONG_USE}), found
