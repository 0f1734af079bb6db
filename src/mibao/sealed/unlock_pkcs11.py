"""A key on a PKCS#11 token as a recipient: the token wraps and unwraps by its own mechanism, the key never leaves it.

Source: PKCS #11 3.1; RFC 7512 for the address; docs/spec/sealed-model.md, section 3.3.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from mibao.crypto import rng
from mibao.crypto.aead import KEY_BYTES
from mibao.crypto.oaep import encrypt_oaep
from mibao.errors import InputError, KeyMismatch, MissingExtra
from mibao.sealed import token_stanza
from mibao.sealed.token_stanza import TokenBody, TokenMechanism
from mibao.sealed.unlock import PKCS11, Binding, Stanza

SCHEME = "pkcs11:"
MODULE_VARIABLE = "MIBAO_PKCS11_MODULE"
PIN_VARIABLE = "MIBAO_PKCS11_PIN"
WRONG = "recipients: the token's key does not open this model"
MAX_PIN_FILE_BYTES = 4096
_PATH = ("token", "serial", "object", "id")
_QUERY = ("module-path", "pin-source")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """One AES-256 or RSA key on a token. The module is loaded and the token opened for each use, and closed again.

    Args:
        module: The token maker's PKCS#11 library.
        pin: The user's PIN; None where the token asks at its own keypad or needs none. It is not printed.
        token: The token's label, or ``serial`` its serial number, or both.
        label: The key's label (CKA_LABEL), or ``id`` its id (CKA_ID), or both; together they name one key.
    """

    module: str
    pin: str | None
    token: str | None = None
    serial: str | None = None
    label: str | None = None
    id: bytes | None = None

    def __post_init__(self) -> None:
        if (self.token or self.serial) is None or (self.label or self.id) is None:
            raise InputError("PKCS#11: expected a token (token= or serial=) and a key (object= or id=)")

    def __repr__(self) -> str:
        return f"<TokenKey {self.label or (self.id or b'').hex()} on {self.token or self.serial}>"

    def __reduce__(self) -> str:
        raise TypeError("a token's key cannot be pickled or copied")

    @property
    def kind(self) -> str:
        """The type of its stanzas."""
        return PKCS11

    def wrap(self, file_key: bytes, binding: Binding) -> Stanza:
        """The stanza that opens with the token's key.

        Raises:
            InputError: the token or the key is not there, the PIN is wrong, or the key is of another kind.
            MissingExtra: ``python-pkcs11`` is not installed.
        """
        key_id, wrapping_key = rng.random_id(), rng.random_bytes(KEY_BYTES)
        with _session(self) as session:
            mechanism, key = _find(session, self, public=True)
            if mechanism is TokenMechanism.AES_KEY_WRAP:
                wrapped = _wrap_aes(session, key, wrapping_key)
            else:
                modulus, exponent = (int.from_bytes(key[name], "big") for name in _rsa_attributes())
                wrapped = encrypt_oaep(wrapping_key, modulus=modulus, public_exponent=exponent)
            reference = bytes(key.id)
        sealed = token_stanza.seal_file_key(file_key, wrapping_key=wrapping_key, key_id=key_id, binding=binding)
        body = TokenBody(mechanism=mechanism, key=reference, wrapped=wrapped, sealed=sealed)
        return Stanza(kind=PKCS11, key_id=key_id, body=body.encode())

    def unwrap(self, stanza: Stanza, binding: Binding) -> bytes:
        """The file key.

        Raises:
            InputError: the token or the key is not there, the PIN is wrong, or its module lacks the mechanism.
            IntegrityError: the stanza was altered, or made for another file, type or id.
            KeyMismatch: made for another key, or altered where only the token could tell.
            MissingExtra: ``python-pkcs11`` is not installed.
        """
        body = token_stanza.decode(stanza.body)
        with _session(self) as session:
            mechanism, key = _find(session, self, public=False)
            if mechanism is not body.mechanism or bytes(key.id) != body.key:
                raise KeyMismatch(WRONG)
            wrapping_key = (_unwrap_aes if mechanism is TokenMechanism.AES_KEY_WRAP else _decrypt_rsa)(
                key, body.wrapped
            )
        if len(wrapping_key) != KEY_BYTES:
            raise KeyMismatch(WRONG)
        return token_stanza.open_file_key(body.sealed, wrapping_key=wrapping_key, key_id=stanza.key_id, binding=binding)


def parse(address: str) -> TokenKey:
    """The key that an address names, as RFC 7512 writes it, of which these attributes are read.

    ``pkcs11:token=T;object=KEY?module-path=/usr/lib/x.so&pin-source=env:NAME``: ``token`` or ``serial``, ``object`` or
    ``id``; the module also comes from $MIBAO_PKCS11_MODULE, the PIN from $MIBAO_PKCS11_PIN. ``pin-source`` is
    ``env:NAME`` or ``file:/path``. A PIN in the address itself is refused: other users see it in the list of processes.

    Raises:
        InputError: another attribute, one twice, one missing, or a PIN's source that is not there.
    """
    path, _, query = address.removeprefix(SCHEME).partition("?")
    found = dict(_attributes(path, ";", _PATH)) | dict(_attributes(query, "&", _QUERY))
    module = found.get("module-path") or os.environ.get(MODULE_VARIABLE)
    if not module:
        raise InputError(f"PKCS#11: expected module-path= in the address, or the token's module in ${MODULE_VARIABLE}")
    return TokenKey(
        module=unquote(module),
        pin=_pin(found.get("pin-source")),
        token=_text(found.get("token")),
        serial=_text(found.get("serial")),
        label=_text(found.get("object")),
        id=unquote_to_bytes(found["id"]) if "id" in found else None,
    )


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    seen = set()
    for each in filter(None, text.split(separator)):
        name, _, value = each.partition("=")
        if name == "pin-value":
            raise InputError("PKCS#11: a PIN in the address shows in the list of processes; use pin-source=env:NAME")
        if name not in known or name in seen or not value:
            raise InputError(f"PKCS#11: expected each of {', '.join(known)} at most once, with a value")
        seen.add(name)
        yield name, value


def _text(value: str | None) -> str | None:
    return None if value is None else unquote(value)


def _pin(source: str | None) -> str | None:
    if source is None:
        return os.environ.get(PIN_VARIABLE)
    kind, _, name = unquote(source).partition(":")
    if kind == "env" and os.environ.get(name):
        return os.environ[name]
    if kind == "file" and Path(name).is_file():
        with Path(name).open("rb") as file:
            return file.read(MAX_PIN_FILE_BYTES).decode("utf-8", "strict").rstrip("\r\n")
    raise InputError("PKCS#11: expected pin-source=env:NAME or file:/path, set and readable")


def _library() -> Any:
    try:
        return importlib.import_module("pkcs11")
    except ImportError as error:
        raise MissingExtra("a key on a PKCS#11 token", extra="pkcs11") from error


@contextmanager
def _session(wanted: TokenKey) -> Iterator[Any]:
    """A session on the token, logged in if there is a PIN. What the token refuses becomes one line."""
    pkcs11 = _library()
    if not Path(wanted.module).is_file():
        raise InputError(f"PKCS#11: {wanted.module}: expected the token's module, and there is none")
    where = wanted.token or wanted.serial
    serial = None if wanted.serial is None else wanted.serial.encode()
    try:
        token = pkcs11.lib(wanted.module).get_token(token_label=wanted.token, token_serial=serial)
        with token.open(user_pin=wanted.pin) as session:
            yield session
    except pkcs11.exceptions.PinIncorrect as error:
        raise InputError(f"PKCS#11: token {where}: the PIN is wrong") from error
    except pkcs11.exceptions.NoSuchToken as error:
        raise InputError(f"PKCS#11: no token {where} in {wanted.module}") from error
    except pkcs11.exceptions.MultipleTokensReturned as error:
        raise InputError(f"PKCS#11: more than one token {where}: name its serial number") from error
    except (pkcs11.exceptions.PKCS11Error, RuntimeError) as error:
        raise InputError(f"PKCS#11: token {where}: {type(error).__name__}") from error


def _find(session: Any, wanted: TokenKey, *, public: bool) -> tuple[TokenMechanism, Any]:
    """The one key of that name: an AES key, or of an RSA pair the public or the private half."""
    pkcs11 = _library()
    half = pkcs11.ObjectClass.PUBLIC_KEY if public else pkcs11.ObjectClass.PRIVATE_KEY
    found = []
    for object_class, key_type, mechanism in (
        (pkcs11.ObjectClass.SECRET_KEY, pkcs11.KeyType.AES, TokenMechanism.AES_KEY_WRAP),
        (half, pkcs11.KeyType.RSA, TokenMechanism.RSA_OAEP_SHA256),
    ):
        sought = {pkcs11.Attribute.CLASS: object_class, pkcs11.Attribute.KEY_TYPE: key_type}
        if wanted.label is not None:
            sought[pkcs11.Attribute.LABEL] = wanted.label
        if wanted.id is not None:
            sought[pkcs11.Attribute.ID] = wanted.id
        found += [(mechanism, key) for key in session.get_objects(sought)]
    if len(found) != 1:
        raise InputError(f"PKCS#11: expected one AES or RSA key of that name on the token, found {len(found)}")
    mechanism, key = found[0]
    if mechanism is TokenMechanism.AES_KEY_WRAP and key.key_length != 8 * KEY_BYTES:
        raise InputError(f"PKCS#11: expected an AES key of {8 * KEY_BYTES} bits, got {key.key_length}")
    return mechanism, key


def _rsa_attributes() -> tuple[Any, Any]:
    attribute = _library().Attribute
    return attribute.MODULUS, attribute.PUBLIC_EXPONENT


def _session_key(pkcs11: Any) -> dict[Any, Any]:
    """How a wrapping key passes through the token: for this session, and readable."""
    attribute = pkcs11.Attribute
    return {attribute.TOKEN: False, attribute.SENSITIVE: False, attribute.EXTRACTABLE: True}


def _wrap_aes(session: Any, key: Any, wrapping_key: bytes) -> bytes:
    pkcs11 = _library()
    attribute = pkcs11.Attribute
    template = {attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY, attribute.KEY_TYPE: pkcs11.KeyType.AES}
    passing = session.create_object({**_session_key(pkcs11), **template, attribute.VALUE: wrapping_key})
    return bytes(key.wrap_key(passing, mechanism=pkcs11.Mechanism.AES_KEY_WRAP))


def _unwrap_aes(key: Any, wrapped: bytes) -> bytes:
    pkcs11 = _library()
    try:
        passing = key.unwrap_key(
            pkcs11.ObjectClass.SECRET_KEY,
            pkcs11.KeyType.AES,
            wrapped,
            mechanism=pkcs11.Mechanism.AES_KEY_WRAP,
            template=_session_key(pkcs11),
        )
    except pkcs11.exceptions.PKCS11Error as error:  # tokens name this failure in many ways
        raise KeyMismatch(f"{WRONG} ({type(error).__name__})") from error
    return bytes(passing[pkcs11.Attribute.VALUE])


def _decrypt_rsa(key: Any, wrapped: bytes) -> bytes:
    errors = _library().exceptions
    try:
        return _oaep(key, wrapped)
    except (errors.ArgumentsBad, errors.MechanismInvalid, errors.MechanismParamInvalid) as error:
        if _does_oaep(key):  # some tokens call what was wrapped for a larger key a bad argument
            raise KeyMismatch(f"{WRONG} ({type(error).__name__})") from error
        raise InputError("PKCS#11: the token's module does not do RSA-OAEP with SHA-256; use an AES key") from error
    except errors.PKCS11Error as error:
        raise KeyMismatch(f"{WRONG} ({type(error).__name__})") from error


def _oaep(key: Any, wrapped: bytes) -> bytes:
    pkcs11 = _library()
    scheme = (pkcs11.Mechanism.SHA256, pkcs11.MGF.SHA256, None)
    return bytes(key.decrypt(wrapped, mechanism=pkcs11.Mechanism.RSA_PKCS_OAEP, mechanism_param=scheme))


def _does_oaep(key: Any) -> bool:
    """Whether the token opens what is wrapped to the key right now."""
    modulus, exponent = (int.from_bytes(key[name], "big") for name in _rsa_attributes())
    sample = bytes(KEY_BYTES)
    try:
        return _oaep(key, encrypt_oaep(sample, modulus=modulus, public_exponent=exponent)) == sample
    except _library().exceptions.PKCS11Error:
        return False
