"""Carrying out what a policy says, for one scope: values in, what stands in their place out."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, cached_property, lru_cache
from hashlib import sha256
from typing import Protocol, runtime_checkable

from mibao.crypto.aead import NONCE_BYTES, AesGcm
from mibao.crypto.kdf import derive, domain_tag, keyed_hash
from mibao.deid import places
from mibao.deid.dates import shifted, year_of
from mibao.deid.fakes import fake
from mibao.deid.normalisation import canonical_form, fold
from mibao.deid.policies import (
    Encrypt,
    Fake,
    Generalise,
    Hash,
    Keep,
    Mask,
    Operation,
    Policy,
    Pseudonym,
    Redact,
    Replace,
    Shift,
    Token,
)  # fmt: skip
from mibao.deid.pseudonyms import utf8
from mibao.deid.vault import Vault
from mibao.errors import InputError, IntegrityError, KeyMismatch, MissingExtra
from mibao.types import AnyType, EntityType

FEWEST_DIGITS = 6  # NIST SP 800-38G revision 1: a domain of at least a million values
_DIGITS = "0123456789"
_TOKEN = re.compile(r"<([A-Z][A-Z0-9_]{1,39}):([A-Za-z0-9_-]{38,1000})>")
# ZIP codes whose first three digits stand for fewer than 20,000 people: HHS guidance of 2012, census of 2000.
_SMALL_ZIP = frozenset(
    f"{number:03d}" for number in (36, 59, 63, 102, 203, 556, 692, 790, 821, 823, 830, 831, 878, 879, 884, 890, 893)
)
_PROVINCE = re.compile(f"{places.PROVINCE}(?:{places.CITY})?|{places.CITY}")


class Operator:
    """Changes values as a policy says, under the key of one scope.

    Args:
        scope_key: 32 bytes, which :func:`mibao.deid.masking.scope_key` gives; None where the policy needs none.
        vault: Where placeholders are remembered; by default in a vault of this scope that nobody keeps.

    Raises:
        InputError: the policy needs a key and there is none.
        MissingExtra: the policy encrypts and the extra ``deid`` is not installed.
    """

    def __init__(self, policy: Policy, *, scope_key: bytes | None = None, vault: Vault | None = None) -> None:
        if policy.needs_key and scope_key is None:
            raise InputError(f"policy {policy.name}: expected a key, which its pseudonyms and hashes depend on")
        if policy.uses(Encrypt):
            _ff1()
        self.policy = policy
        self._key = scope_key
        self._vault = vault

    def changed(self, entity: AnyType, written: str) -> str:
        """What stands where ``written`` stood.

        Raises:
            InputError: format-preserving encryption of a value with too few digits.
        """
        if written in self.policy.allow:
            return written
        return self.carry_out(self.policy.operation(entity), entity, written)

    def carry_out(self, operation: Operation, entity: AnyType, written: str) -> str:  # noqa: PLR0911
        """What ``operation`` makes of ``written``, whatever the policy says of its type. Raises as :meth:`changed`."""
        match operation:
            case Keep():
                return written
            case Redact():
                return ""
            case Replace(text=text):
                return f"<{entity.value}>" if text is None else text
            case Mask(first=first, last=last, sign=sign):
                return masked(written, first=first, last=last, sign=sign)
            case Pseudonym():
                return self._pseudonyms.placeholder_for(entity, written)
            case Fake():
                return fake(entity, written, key=self._secret)
            case Encrypt(first=first, last=last):
                return encrypted(entity, written, key=self._secret, first=first, last=last)
            case Token():
                return token(entity, written, key=self._secret)
            case Hash(length=length):
                return self._hashed(entity, written, length)
            case Shift(days=days):
                return shifted(fold(written), self._offset(days)) or f"<{entity.value}>"
            case Generalise():
                return generalised(entity, written)

    def batch(self) -> AbstractContextManager[None]:
        """New placeholders of a block are stored together: :meth:`mibao.deid.vault.Vault.batch`."""
        return self._vault.batch() if self._vault is not None else nullcontext()

    @property
    def _secret(self) -> bytes:
        if self._key is None:
            raise InputError("policy: expected a key")
        return self._key

    @cached_property
    def _pseudonyms(self) -> Vault:
        return self._vault if self._vault is not None else Vault(scope_key=self._secret)

    def _hashed(self, entity: AnyType, written: str, length: int) -> str:
        message = domain_tag("deid/hash", utf8(entity.value), utf8(canonical_form(entity, written)))
        return str(keyed_hash(self._secret, purpose="deid/hash", message=message))[:length]

    def _offset(self, days: int) -> int:
        """From 1 to ``days``, forwards or back: the same for all dates of the scope."""
        number = int.from_bytes(derive(self._secret, purpose="deid/date-shift", length=16), "big")
        return (1 + (number >> 1) % days) * (1 if number & 1 else -1)


def masked(written: str, *, first: int, last: int, sign: str) -> str:
    """``written`` with ``sign`` for its letters and digits, but for the first and the last of them.

    At least a third of them are hidden, however many are to be shown.
    """
    places_of = [index for index, symbol in enumerate(written) if symbol.isalnum()]
    shown = 2 * len(places_of) // 3
    last = min(last, shown)
    first = min(first, shown - last) if first + last > shown else first
    hidden = set(places_of[first : len(places_of) - last])
    return "".join(sign if index in hidden else symbol for index, symbol in enumerate(written))


def encrypted(entity: AnyType, written: str, *, key: bytes, first: int = 0, last: int = 0) -> str:
    """``written`` with its digits, but for the first and the last, under FF1; separators stay where they are.

    Raises:
        InputError: fewer than six digits are left to encrypt, a domain of under a million values.
        MissingExtra: the extra ``deid`` is not installed.

    Source: NIST SP 800-38G revision 1; the tweak is a hash of the type and the digits that stay.
    """
    return _permuted(_ff1().encrypt, entity, written, key=key, first=first, last=last)


def decrypted(entity: AnyType, written: str, *, key: bytes, first: int = 0, last: int = 0) -> str:
    """What :func:`encrypted` was given. Raises as it does."""
    return _permuted(_ff1().decrypt, entity, written, key=key, first=first, last=last)


def _permuted(
    permute: Callable[[str, str, str, str], str],
    entity: AnyType,
    written: str,
    *,
    key: bytes,
    first: int,
    last: int,
) -> str:
    if not (first or last) and written.isascii() and written.isdigit() and len(written) >= FEWEST_DIGITS:
        return permute(_ff1_key(key), _ff1_tweak(entity, ""), _DIGITS, written)
    folded = fold(written)
    inside: list[int] | None = None
    if folded.isdigit():
        digits, shown = folded[first : len(folded) - last], folded[:first] + folded[len(folded) - last :]
    else:
        at = [index for index, symbol in enumerate(folded) if symbol in _DIGITS]
        inside = at[first : len(at) - last]
        digits = "".join(folded[index] for index in inside)
        shown = "".join(folded[index] for index in (*at[:first], *at[len(at) - last :]))
    if len(digits) < FEWEST_DIGITS:
        raise InputError(
            f"FF1: expected at least {FEWEST_DIGITS} digits to encrypt in a {entity.value}, got {len(digits)}"
        )
    changed = permute(_ff1_key(key), _ff1_tweak(entity, shown), _DIGITS, digits)
    if inside is None:
        return folded[:first] + changed + folded[len(folded) - last :]
    symbols = list(folded)
    for index, digit in zip(inside, changed, strict=True):
        symbols[index] = digit
    return "".join(symbols)


@lru_cache(maxsize=64)
def _ff1_key(key: bytes) -> str:
    return derive(key, purpose="deid/ff1").hex()


@lru_cache(maxsize=4096)
def _ff1_tweak(entity: AnyType, shown: str) -> str:
    return sha256(domain_tag("deid/ff1-tweak", utf8(entity.value), utf8(shown))).hexdigest()[:16]


@runtime_checkable
class _Permutations(Protocol):
    """What ``fastfpe.ff1`` offers: key and tweak in hexadecimal, alphabet, text."""

    def encrypt(self, key: str, tweak: str, alphabet: str, plaintext: str, /) -> str: ...
    def decrypt(self, key: str, tweak: str, alphabet: str, ciphertext: str, /) -> str: ...


@cache
def _ff1() -> _Permutations:
    try:
        from fastfpe import ff1  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("format-preserving encryption", extra="deid") from error
    permutations: _Permutations = ff1
    return permutations


def token(entity: AnyType, written: str, *, key: bytes) -> str:
    """``written`` under AES-256-GCM, in a token that names its type; equal values of a scope have equal tokens.

    The nonce is a keyed hash of type and value, so it repeats only where the whole message does.
    """
    plain = utf8(written)
    nonce = keyed_hash(key, purpose="deid/token-nonce", message=domain_tag("deid/token", utf8(entity.value), plain))
    sealed = _cipher(key).seal(nonce.value[:NONCE_BYTES], plain, domain_tag("deid/token", utf8(entity.value)))
    return f"<{entity.value}:{base64.urlsafe_b64encode(nonce.value[:NONCE_BYTES] + sealed).rstrip(b'=').decode()}>"


def open_tokens(text: str, *, key: bytes) -> str:
    """``text`` with every token of this key replaced by what it holds; what only looks like one stays.

    Raises:
        KeyMismatch: there are tokens, and none is of this key.
    """
    opened = failed = 0

    def open_one(match: re.Match[str]) -> str:
        nonlocal opened, failed
        data = base64.urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4))
        try:
            plain = _cipher(key).open(data[:NONCE_BYTES], data[NONCE_BYTES:], domain_tag("deid/token", utf8(match[1])))
        except IntegrityError:
            failed += 1
            return match[0]
        opened += 1
        return plain.decode("utf-8", "surrogatepass")

    restored = _TOKEN.sub(open_one, text)
    if failed and not opened:
        raise KeyMismatch("tokens: none of them is of this key and scope")
    return restored


def _cipher(key: bytes) -> AesGcm:
    return AesGcm(derive(key, purpose="deid/token"))


def generalised(entity: AnyType, written: str) -> str:  # noqa: PLR0911
    """Less exact, as the type allows; the name of the type where nothing less exact is known."""
    folded = fold(written)
    digits = "".join(symbol for symbol in folded if symbol in _DIGITS)
    match entity:
        case EntityType.DATE_TIME if year := year_of(folded):
            return year
        case EntityType.AGE:
            return "90+"
        case EntityType.US_ZIP_CODE if len(digits) >= 5:
            return "000" if digits[:3] in _SMALL_ZIP else digits[:3]
        case EntityType.CN_POSTAL_CODE if len(digits) == 6:
            return f"{digits[:2]}0000"
        case EntityType.UK_POSTCODE:
            return folded.split(" ", maxsplit=1)[0]
        case EntityType.ADDRESS if place := _PROVINCE.match(folded):
            return place[0]
        case EntityType.IP_ADDRESS if folded.count(".") == 3:
            return f"{folded.rsplit('.', 1)[0]}.0"
        case EntityType.COORDINATES if len(numbers := re.findall(r"[+-]?[0-9]+\.[0-9]", folded)) == 2:
            return ", ".join(numbers)
        case _:
            return f"<{entity.value}>"
