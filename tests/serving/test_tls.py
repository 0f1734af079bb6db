"""Clients with certificates: a real server, real handshakes, and keys that are bound to certificates."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mibao.errors import InputError
from mibao.serving import api_keys, tls
from mibao.serving.accounts import Accounts
from mibao.serving.admission import Refused
from mibao.serving.api_keys import Grant, KeyKind
from mibao.serving.storage import Store


class Pki:
    """An authority in a folder, and certificates that it signed."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        built = self._builder(self._subject, self._key.public_key(), days=2)
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        built = built.add_extension(usage, critical=True)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, days: int = 2) -> tuple[Path, Path, bytes]:
        """A certificate's file, its key's, and the certificate in DER."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = self._builder(subject, key.public_key(), days=days)
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        signed = built.add_extension(address, critical=False).sign(self._key, hashes.SHA256())
        certificate, secret = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        secret.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        return certificate, secret, signed.public_bytes(serialization.Encoding.DER)

    def _builder(self, subject: x509.Name, key: Any, *, days: int) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        begin = now - datetime.timedelta(days=10)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        built = x509.CertificateBuilder(
            self._subject, subject, key, x509.random_serial_number(), begin, now + datetime.timedelta(days)
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(key)
        return built.add_extension(authority, critical=False).add_extension(identifier, critical=False)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"), "ours")


@pytest.fixture(params=[True, False], ids=["required", "asked for"])
def served(request: pytest.FixtureRequest, pki: Pki, tmp_path: Path) -> Iterator[tuple[int, Store, bool]]:
    """The port of a server that answers with the tenant whom it lets in, its store, and whether it must have one."""
    certificate, key, _ = pki.issue("server")
    with Store.open(tmp_path / "gateway.db") as store:
        accounts = Accounts(store)

        async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            try:
                caller = await accounts.admit(
                    authorization=None, client_certificate=tls.client_certificate(scope), route="/v1/models", model=None
                )
                status, body = 200, caller.tenant.encode()
            except Refused as refused:
                status, body = refused.status, refused.code.encode()
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": body})

        config = tls.server_config(
            app, host="127.0.0.1", port=0, certificate=certificate, key=key, client_authority=pki.path,
            required=request.param,
        )  # fmt: skip
        config.lifespan = "off"
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1], store, request.param
        server.should_exit = True
        thread.join()
        accounts.close()


def ask(port: int, pki: Pki, pair: tuple[Path, Path, bytes] | None, **limits: Any) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=str(pki.path))
    for name, value in limits.items():
        setattr(context, name, value)
    if pair is not None:
        context.load_cert_chain(pair[0], pair[1])
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    try:
        connection.request("GET", "/v1/models")
        answer = connection.getresponse()
        assert answer.getheader("server") is None
        return answer.status, answer.read().decode()
    finally:
        connection.close()


REFUSED_HANDSHAKE = (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)


def test_the_holder_of_a_registered_certificate_is_let_in_and_of_no_other(
    served: tuple[int, Store, bool], pki: Pki
) -> None:
    port, store, required = served
    known, unknown = pki.issue("known"), pki.issue("unknown")
    with store.writing() as connection:
        grant = Grant(tenant="acme", kind=KeyKind.CERTIFICATE)
        api_keys.register_certificate(connection, known[2], grant, now_ms=1)
    assert ask(port, pki, known) == (200, "acme")
    assert ask(port, pki, unknown) == (401, "invalid_api_key")
    if required:
        with pytest.raises(REFUSED_HANDSHAKE):
            ask(port, pki, None)
    else:
        assert ask(port, pki, None) == (401, "missing_api_key")


@pytest.mark.parametrize("fault", ["another authority's", "expired"])
def test_a_certificate_that_nobody_vouches_for_ends_the_handshake_even_if_it_is_registered(
    served: tuple[int, Store, bool], pki: Pki, tmp_path: Path, fault: str
) -> None:
    port, store, _ = served
    pair = Pki(tmp_path, "theirs").issue("x") if fault == "another authority's" else pki.issue("old", days=-1)
    with store.writing() as connection:
        grant = Grant(tenant="acme", kind=KeyKind.CERTIFICATE)
        api_keys.register_certificate(connection, pair[2], grant, now_ms=1)
    with pytest.raises(REFUSED_HANDSHAKE):
        ask(port, pki, pair)


def test_a_header_cannot_stand_in_for_a_certificate() -> None:
    scope = {"type": "http", "headers": [(b"x-forwarded-client-cert", b"x"), (b"ssl-client-cert", b"x")]}
    assert tls.client_certificate(scope) is None


def test_a_key_that_is_none_is_refused(pki: Pki, tmp_path: Path) -> None:
    certificate, _, _ = pki.issue("one")
    (tmp_path / "key").write_text("none")
    with pytest.raises(InputError, match="a certificate or key cannot be used"):
        tls.server_config(
            None, host="127.0.0.1", port=0, certificate=certificate, key=tmp_path / "key", client_authority=pki.path
        )
