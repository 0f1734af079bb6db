"""Tokens of an identity provider: who signed, for whom, from when and until when, and nothing else of them.

The keys are the provider's own (JWKS), fetched over TLS, remembered, and asked for again when a token names a key that
is not among them: that is how a provider rotates. The signature's algorithm is the configuration's choice and never the
token's: ``none`` and every algorithm of a shared secret are refused when the configuration is read.

Source: RFC 7519 (JWT), RFC 7517 (JWK), RFC 8725 (JWT Best Current Practices).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from mibao.errors import InputError, MissingExtra
from mibao.serving.api_keys import NO_LIMITS, Limits
from mibao.serving.storage import Unavailable

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
MAX_TOKEN_CHARS = 16_384
MAX_JWKS_BYTES = 1 << 20
MAX_JWKS_KEYS = 100
MIN_RSA_BITS = 2048
FETCH_TIMEOUT_S = 5.0
FRESH_S = 3600.0  # keys are asked for again after that
STALE_S = 86_400.0  # and trusted so long while the provider does not answer
AGAIN_S = 30.0  # a key that is not known is asked for no oftener
LEEWAY_S = 30
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class NotAccepted(Exception):
    """A token that opens nothing. The reason is for the log and holds nothing of the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One identity provider, and what its tokens open.

    Args:
        issuer: The token's ``iss``, to the letter.
        audience: What its ``aud`` must name.
        jwks_url: Where its keys are: https, or http on this machine.
        algorithms: Those of :data:`ALGORITHMS` that it signs with.
        tenant: Whose tokens these are; or, with ``tenant_claim``, None.
        tenant_claim: The claim that names the tenant.
    """

    issuer: str
    audience: str
    jwks_url: str
    algorithms: tuple[str, ...] = ("RS256",)
    tenant: str | None = None
    tenant_claim: str | None = None
    policy: str | None = None
    routes: frozenset[str] | None = None
    models: frozenset[str] | None = None
    limits: Limits = NO_LIMITS

    def __post_init__(self) -> None:
        unknown = [name for name in self.algorithms if name not in ALGORITHMS]
        if unknown or not self.algorithms:
            raise InputError(f"OIDC: expected algorithms out of {', '.join(ALGORITHMS)}, got {unknown or 'none'}")
        url = urlsplit(self.jwks_url)
        if not (url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOOPBACK)):
            raise InputError("OIDC: expected an https:// address of the keys, or http:// on this machine")
        if (self.tenant is None) == (self.tenant_claim is None):
            raise InputError("OIDC: expected either tenant or tenant_claim")
        if not self.issuer or not self.audience:
            raise InputError("OIDC: expected an issuer and an audience")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whom a token speaks of. ``key_id`` is a hash of issuer and subject: an address in it would be personal data."""

    issuer: Issuer
    tenant: str
    key_id: str


@dataclass(slots=True)
class _Keys:
    """The keys of one issuer by their ids, each with the algorithm it is said to be for."""

    by_id: Mapping[str, tuple[Any, str | None]] = field(default_factory=dict)
    fetched_s: float = float("-inf")
    tried_s: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class TokenVerifier:
    """Accepts the tokens of ``issuers``.

    Raises:
        InputError: two issuers of one name.
        MissingExtra: PyJWT is not installed.
    """

    def __init__(self, issuers: Sequence[Issuer], *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        try:
            import jwt  # noqa: PLC0415 - asked for only where tokens are
        except ImportError as error:
            raise MissingExtra("OIDC", extra="serving") from error
        self._jwt = jwt
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        if len(self._issuers) != len(issuers):
            raise InputError("OIDC: expected each issuer once")
        self._keys = {issuer.issuer: _Keys() for issuer in issuers}
        self._monotonic_s = monotonic_s

    async def subject(self, token: str) -> Subject:
        """Whom ``token`` speaks of.

        Raises:
            NotAccepted: it is none of a known issuer's, is for another audience, is not valid yet or any more, or its
                signature is not right.
            Unavailable: the issuer's keys cannot be had.
        """
        issuer, header = self._addressed(token)
        key, declared = await self._key(issuer, header["kid"])
        if declared not in (None, header["alg"]):
            raise NotAccepted("the key is for another algorithm")
        try:
            claims = self._jwt.decode(
                token,
                key,
                algorithms=[header["alg"]],
                audience=issuer.audience,
                issuer=issuer.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (self._jwt.PyJWTError, TypeError, ValueError) as error:  # the last two: a key of another kind
            raise NotAccepted(f"not valid ({type(error).__name__})") from None
        return _subject(issuer, claims)

    def _addressed(self, token: str) -> tuple[Issuer, Mapping[str, str]]:
        """The issuer that the token names, which its signature has yet to prove, and the checked header."""
        if len(token) > MAX_TOKEN_CHARS or token.count(".") != 2:
            raise NotAccepted("not a signed token")
        try:
            header, claims = (_part(part) for part in token.split(".")[:2])
        except (ValueError, RecursionError):
            raise NotAccepted("not a signed token") from None
        name = claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise NotAccepted("of an unknown issuer")
        if header.get("alg") not in issuer.algorithms:
            raise NotAccepted("signed by another algorithm")
        if "crit" in header or not isinstance(header.get("kid"), str):
            raise NotAccepted("expected a key id, and no critical extensions")
        return issuer, {"alg": header["alg"], "kid": header["kid"]}

    async def _key(self, issuer: Issuer, key_id: str) -> tuple[Any, str | None]:
        keys = self._keys[issuer.issuer]
        now_s = self._monotonic_s()
        if key_id not in keys.by_id or now_s - keys.fetched_s > FRESH_S:
            async with keys.lock:
                if self._monotonic_s() - keys.tried_s >= AGAIN_S:
                    await self._fetch(issuer, keys)
        if self._monotonic_s() - keys.fetched_s > STALE_S:
            raise Unavailable("OIDC: the issuer's keys cannot be had")
        if key_id not in keys.by_id:
            raise NotAccepted("signed with an unknown key")
        return keys.by_id[key_id]

    async def _fetch(self, issuer: Issuer, keys: _Keys) -> None:
        keys.tried_s = self._monotonic_s()
        try:
            keys.by_id = self._usable(await fetch_jwks(issuer.jwks_url))
        except Unavailable:
            return  # the ones that are known stand for a while
        keys.fetched_s = self._monotonic_s()

    def _usable(self, jwks: object) -> Mapping[str, tuple[Any, str | None]]:
        listed = jwks.get("keys") if isinstance(jwks, dict) else None
        if not isinstance(listed, list) or len(listed) > MAX_JWKS_KEYS:
            raise Unavailable("OIDC: what the issuer sent is no list of keys")
        usable = {}
        for data in listed:
            if not isinstance(data, dict) or data.get("kty") not in ("RSA", "EC", "OKP"):
                continue
            if data.get("use", "sig") != "sig" or not isinstance(data.get("kid"), str):
                continue
            try:
                key = self._jwt.PyJWK(data)
            except (self._jwt.PyJWTError, ValueError, TypeError):
                continue  # of a kind that is not known here
            if data["kty"] != "RSA" or key.key.key_size >= MIN_RSA_BITS:
                usable[data["kid"]] = (key.key, data.get("alg"))
        return usable


async def fetch_jwks(url: str) -> object:
    """What lies at ``url``, as JSON, within limits of time and size.

    Raises:
        Unavailable: nothing does, it is something else, or it is too much.
    """
    import aiohttp  # noqa: PLC0415

    timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
            session.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            if answer.status != 200:
                raise Unavailable(f"OIDC: the issuer answers {answer.status} for its keys")
            body = await answer.content.read(MAX_JWKS_BYTES + 1)
            while len(body) <= MAX_JWKS_BYTES and (more := await answer.content.read(MAX_JWKS_BYTES)):
                body += more
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"OIDC: the issuer's keys cannot be had ({type(error).__name__})") from None
    if len(body) > MAX_JWKS_BYTES:
        raise Unavailable("OIDC: what the issuer sent is no list of keys")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Unavailable("OIDC: what the issuer sent is no list of keys") from None


def _subject(issuer: Issuer, claims: Mapping[str, Any]) -> Subject:
    subject = claims.get("sub")
    tenant = issuer.tenant if issuer.tenant is not None else claims.get(issuer.tenant_claim or "")
    if not isinstance(subject, str) or not subject or not isinstance(tenant, str) or not tenant:
        raise NotAccepted("expected a subject and a tenant")
    digest = hashlib.sha256(json.dumps([issuer.issuer, subject]).encode()).digest()
    return Subject(issuer=issuer, tenant=tenant, key_id=f"oidc-{base64.b32encode(digest[:10]).decode().lower()}")


def _part(text: str) -> dict[str, Any]:
    value = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    if not isinstance(value, dict):
        raise ValueError("expected an object")
    return value
