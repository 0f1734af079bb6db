"""Tokens of identity providers: real ones, made with real keys, and a provider that answers over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from mibao.errors import InputError
from mibao.serving import oidc
from mibao.serving.accounts import Accounts
from mibao.serving.admission import Refused
from mibao.serving.api_keys import Limits
from mibao.serving.oidc import Issuer, NotAccepted, Subject, TokenVerifier
from mibao.serving.storage import Store, Unavailable

ISS, AUD = "https://issuer.example", "mibao"
_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_SHORT_RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - to be refused
_EC = ec.generate_private_key(ec.SECP256R1())
_ED = ed25519.Ed25519PrivateKey.generate()


def jwk(key: object, *, kid: str, **extra: str) -> dict[str, str]:
    kind = {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}
    name = next(alg for part, alg in kind.items() if part in type(key).__name__.lower())
    made = jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True)
    made.pop("key_ops", None)
    return {**made, "kid": kid, "use": "sig", **extra}


class Provider:
    """Answers for its keys; ``asked`` counts how often. ``body`` overrides them."""

    def __init__(self) -> None:
        self.keys = [jwk(_RSA, kid="r"), jwk(_EC, kid="e"), jwk(_ED, kid="d")]
        self.body: bytes | None = None
        self.status, self.asked = 200, 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                body = provider.body if provider.body is not None else json.dumps({"keys": provider.keys}).encode()
                self.send_response(provider.status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    started = Provider()
    yield started
    started.close()


def issuer(provider: Provider, **changes: object) -> Issuer:
    fields = {
        "issuer": ISS, "audience": AUD, "jwks_url": provider.url, "algorithms": ("RS256", "ES256", "EdDSA"),
        "tenant": "acme", **changes,
    }  # fmt: skip
    return Issuer(**fields)


def token(*, key: object = _RSA, kid: str | None = "r", alg: str = "RS256", headers: dict[str, object] | None = None,
          **changes: object) -> str:  # fmt: skip
    now = int(time.time())
    claims = {"iss": ISS, "aud": AUD, "sub": "jane@example.com", "iat": now, "nbf": now, "exp": now + 300, **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    head = {**({"kid": kid} if kid else {}), **(headers or {})}
    return jwt.encode(claims, key, algorithm=alg, headers=head)


def subject(verifier: TokenVerifier, text: str) -> Subject:
    return asyncio.run(verifier.subject(text))


@pytest.mark.parametrize(("key", "kid", "alg"), [(_RSA, "r", "RS256"), (_EC, "e", "ES256"), (_ED, "d", "EdDSA")])
def test_a_token_of_each_kind_of_key_names_its_subject_without_its_address(
    provider: Provider, key: object, kid: str, alg: str
) -> None:
    found = subject(TokenVerifier([issuer(provider)]), token(key=key, kid=kid, alg=alg))
    assert found.tenant == "acme"
    assert found.key_id.startswith("oidc-")
    assert "jane" not in found.key_id


def test_one_subject_has_one_name_and_another_has_another(provider: Provider) -> None:
    verifier = TokenVerifier([issuer(provider)])
    one, again, other = (subject(verifier, token(sub=sub)).key_id for sub in ("a", "a", "b"))
    assert one == again != other


def test_the_tenant_can_be_a_claims(provider: Provider) -> None:
    verifier = TokenVerifier([issuer(provider, tenant=None, tenant_claim="org")])
    assert subject(verifier, token(org="north")).tenant == "north"
    with pytest.raises(NotAccepted, match="expected a subject and a tenant"):
        subject(verifier, token())


def _unsigned(text: str) -> str:
    return f"{_encoded({'alg': 'none', 'kid': 'r'})}.{text.split('.')[1]}."


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _confused(text: str) -> str:
    """Signed by HMAC under the public key's own text, as CVE-2016-10555 had it."""
    import hashlib
    import hmac

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = _RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{_encoded({'alg': 'HS256', 'kid': 'r'})}.{text.split('.')[1]}"
    mac = hmac.new(public, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: token(exp=int(time.time()) - 60), r"not valid \(ExpiredSignatureError\)"),
        (lambda: token(nbf=int(time.time()) + 60), r"not valid \(ImmatureSignatureError\)"),
        (lambda: token(aud="another"), r"not valid \(InvalidAudienceError\)"),
        (lambda: token(aud=None), r"not valid \(MissingRequiredClaimError\)"),
        (lambda: token(exp=None), r"not valid \(MissingRequiredClaimError\)"),
        (lambda: token(sub=None), r"not valid \(MissingRequiredClaimError\)"),
        (lambda: token(iss="https://other.example"), "of an unknown issuer"),
        (lambda: token(key=_OTHER_RSA), r"not valid \(InvalidSignatureError\)"),
        (lambda: token(kid="unknown"), "signed with an unknown key"),
        (lambda: token(kid=None), "expected a key id"),
        (lambda: token(alg="RS512"), "signed by another algorithm"),
        (lambda: token(kid="e"), "not valid"),
        (lambda: token(headers={"crit": ["x"], "x": 1}), "no critical extensions"),
        (lambda: _unsigned(token()), "signed by another algorithm"),
        (lambda: _confused(token()), "signed by another algorithm"),
        (lambda: token()[:-6] + "AAAAAA", r"not valid \(InvalidSignatureError\)"),
        (lambda: "a.b.c", "not a signed token"),
        (lambda: "e30.e30", "not a signed token"),
        (lambda: "W10.W10.", "not a signed token"),
        (lambda: token(padding="x" * 20_000), "not a signed token"),
    ],
)
def test_a_token_with_one_fault_is_not_accepted(provider: Provider, make: Callable[[], str], reason: str) -> None:
    with pytest.raises(NotAccepted, match=reason):
        subject(TokenVerifier([issuer(provider)]), make())


def test_a_key_that_is_said_to_be_for_one_algorithm_serves_no_other(provider: Provider) -> None:
    provider.keys = [jwk(_RSA, kid="r", alg="PS256")]
    with pytest.raises(NotAccepted, match="the key is for another algorithm"):
        subject(TokenVerifier([issuer(provider)]), token())


@pytest.mark.parametrize(
    "keys",
    [
        [jwk(_SHORT_RSA, kid="r")],
        [jwk(_RSA, kid="r", use="enc")],
        [{"kty": "oct", "kid": "r", "k": "c2VjcmV0", "use": "sig"}],
        [{"kty": "RSA", "kid": "r"}],
        ["no key"],
    ],
    ids=["short", "for encryption", "shared secret", "broken", "text"],
)
def test_keys_that_are_not_for_this_are_not_used(provider: Provider, keys: list[object]) -> None:
    provider.keys = keys
    with pytest.raises(NotAccepted, match="signed with an unknown key"):
        subject(TokenVerifier([issuer(provider)]), token())


def test_a_provider_that_rotates_its_keys_is_asked_again_and_no_oftener_than_is_polite(provider: Provider) -> None:
    now = [0.0]
    verifier = TokenVerifier([issuer(provider)], monotonic_s=lambda: now[0])
    subject(verifier, token())
    subject(verifier, token())
    assert provider.asked == 1
    provider.keys = [jwk(_OTHER_RSA, kid="new")]
    for _ in range(3):
        with pytest.raises(NotAccepted, match="unknown key"):
            subject(verifier, token(key=_OTHER_RSA, kid="new"))
    assert provider.asked == 1
    now[0] += oidc.AGAIN_S
    subject(verifier, token(key=_OTHER_RSA, kid="new"))
    assert provider.asked == 2
    with pytest.raises(NotAccepted, match="unknown key"):
        subject(verifier, token())


def test_a_provider_that_is_gone_is_trusted_for_a_while_and_then_no_more(provider: Provider) -> None:
    now = [0.0]
    verifier = TokenVerifier([issuer(provider)], monotonic_s=lambda: now[0])
    subject(verifier, token())
    provider.status = 500
    now[0] = oidc.STALE_S
    subject(verifier, token())
    now[0] += 1
    with pytest.raises(Unavailable, match="keys cannot be had"):
        subject(verifier, token())


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"{}"), (200, b"no json"), (200, b" " * (oidc.MAX_JWKS_BYTES + 1)), (302, b"{}"),
     (200, json.dumps({"keys": [{}] * 101}).encode()), (200, b"[" * 100_000)],
    ids=["empty", "no json", "too large", "redirect", "too many", "too deep"],
)  # fmt: skip
def test_what_is_no_list_of_keys_opens_nothing(provider: Provider, status: int, body: bytes) -> None:
    provider.status, provider.body = status, body
    with pytest.raises(Unavailable, match="keys cannot be had"):
        subject(TokenVerifier([issuer(provider)]), token())
    assert provider.asked == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithms": ("HS256",)}, "expected algorithms out of RS256"),
        ({"algorithms": ("none",)}, "expected algorithms out of RS256"),
        ({"algorithms": ()}, "expected algorithms out of RS256"),
        ({"jwks_url": "http://issuer.example/jwks"}, "expected an https:// address"),
        ({"jwks_url": "file:///etc/passwd"}, "expected an https:// address"),
        ({"tenant_claim": "org"}, "expected either tenant or tenant_claim"),
        ({"tenant": None}, "expected either tenant or tenant_claim"),
        ({"audience": ""}, "expected an issuer and an audience"),
    ],
)
def test_a_configuration_that_would_be_unsafe_is_refused(
    provider: Provider, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        issuer(provider, **changes)


def test_a_token_lets_in_within_the_limits_of_its_issuer(provider: Provider, tmp_path) -> None:
    limited = issuer(provider, limits=Limits(requests_per_minute=1), models=frozenset({"small"}), policy="strict")

    async def run(store: Store) -> None:
        accounts = Accounts(store, tokens=TokenVerifier([limited]))

        async def ask(text: str) -> object:
            return await accounts.admit(
                authorization=f"Bearer {text}", client_certificate=None, route="/v1/models", model=None
            )

        caller = await ask(token())
        assert (caller.tenant, caller.policy, caller.models) == ("acme", "strict", frozenset({"small"}))
        with pytest.raises(Refused, match="too many requests"):
            await ask(token())
        await ask(token(sub="another"))
        with pytest.raises(Refused, match="this API key is not valid"):
            await ask(token(aud="another"))
        await asyncio.to_thread(accounts.close)

    with Store.open(tmp_path / "gateway.db") as store:
        asyncio.run(run(store))
