"""TLS with certificates of clients: a server that tells the application whose certificate a connection was made with.

granian checks a client's certificate (``ssl_client_verify``) and does not tell the application which it was, so keys
bound to certificates are served by uvicorn. What the application gets is the TLS extension of ASGI.

Source: ASGI, "TLS Extension", version 0.2 (``client_cert_chain``, in PEM).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mibao.errors import InputError, MissingExtra

MAX_CERTIFICATE_CHARS = 64 * 1024


def client_certificate(scope: Mapping[str, Any]) -> bytes | None:
    """The certificate, in DER, that the request's connection was made with; None without one."""
    chain = scope.get("extensions", {}).get("tls", {}).get("client_cert_chain") or ()
    for pem in chain:
        if isinstance(pem, str) and len(pem) <= MAX_CERTIFICATE_CHARS:
            return ssl.PEM_cert_to_DER_cert(pem)
        return None
    return None


def server_config(
    app: Any, *, host: str, port: int, certificate: Path, key: Path, client_authority: Path, required: bool = True
) -> Any:
    """A ``uvicorn.Config`` that serves ``app`` over TLS 1.2 or newer and asks clients for a certificate.

    Args:
        app: The ASGI application.
        host: Where to listen.
        port: The port there; 0 for any.
        certificate: The server's, with its chain, in PEM.
        key: The server's private key, in PEM.
        client_authority: Who vouches for the clients' certificates, in PEM; no other authority is believed.
        required: Whether a connection without a certificate is refused in the handshake.

    Raises:
        InputError: a file cannot be used.
        MissingExtra: uvicorn is not installed.
    """
    try:
        import uvicorn  # noqa: PLC0415 - an extra, asked for only where clients have certificates
        from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("TLS with certificates of clients", extra="serving") from error

    class CertificateProtocol(H11Protocol):
        """Tells the application the certificate of each connection."""

        def connection_made(self, transport: Any) -> None:  # asyncio's or uvloop's
            super().connection_made(transport)
            encrypted = transport.get_extra_info("ssl_object")
            presented = encrypted.getpeercert(binary_form=True) if encrypted is not None else None
            self.app = _with_certificate(self.app, presented)

    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=CertificateProtocol,
        ws="none",
        lifespan="auto",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_ca_certs=str(client_authority),
        ssl_cert_reqs=ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"TLS: a certificate or key cannot be used ({type(error).__name__})") from error
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return config


def _with_certificate(app: Any, presented: bytes | None) -> Any:
    """``app`` for one connection."""
    chain = [] if presented is None else [ssl.DER_cert_to_PEM_cert(presented)]

    async def told(scope: dict[str, Any], receive: Any, send: Any) -> None:
        extensions = {**scope.get("extensions", {}), "tls": {"client_cert_chain": chain}}
        await app({**scope, "extensions": extensions}, receive, send)

    return told
