"""A web server on 127.0.0.1 that answers ranges over TLS, under an authority of its own, with faults on demand."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HANG_S = 1.0
_BUSY = {"busy": 503, "slow down": 429, "gone": 404, "forbidden": 403, "ignores": 200, "changed": 412}


class Authority:
    """Signs certificates; ``ca_file`` is its own, in PEM."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's authority")])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        built = _unsigned(self._name, self._name, self._key.public_key(), days=2)
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        built = built.add_extension(usage, critical=True)
        built = built.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        self.ca_file = folder / "authority.pem"
        self.ca_file.write_bytes(built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def context(self, *, days: int = 2) -> ssl.SSLContext:
        """A server's context with a certificate for 127.0.0.1; of negative ``days`` if it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's server")])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        built = _unsigned(name, self._name, key.public_key(), days=days)
        built = built.add_extension(address, critical=False).add_extension(issuer, critical=False)
        path = self._folder / f"server{days}.pem"
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
        path.write_bytes(secret + built.sign(self._key, hashes.SHA256()).public_bytes(pem))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _unsigned(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    begin = now - datetime.timedelta(days=10)
    return x509.CertificateBuilder(
        issuer, name, key, x509.random_serial_number(), begin, now + datetime.timedelta(days)
    )


class RangeServer(BaseHTTPRequestHandler):
    """``data`` at ``/m`` by ranges. The request of each number in ``faults`` is answered wrongly; ``always`` is the
    fault of every one from the second on. ``ranges`` are those that were asked for, ``paths`` all paths, ``times``
    when they were asked for."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    data: bytes
    url: str
    always = ""
    faults: dict[int, str]
    redirects: dict[str, str | None]
    ranges: list[tuple[int, int]]
    paths: list[str]
    times: list[float]

    def do_GET(self) -> None:
        kind, path = type(self), self.path.partition("?")[0]
        kind.paths.append(path)
        kind.times.append(time.monotonic())
        number = len(kind.paths)
        fault = kind.faults.get(number, kind.always if number > 1 else "")
        if path in kind.redirects:
            self.send_response(302)
            if kind.redirects[path] is not None:
                self.send_header("Location", kind.redirects[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        kind.ranges.append((first, last))
        self._answer(first, last, fault)

    def _answer(self, first: int, last: int, fault: str) -> None:
        body, total = type(self).data[first : last + 1], len(type(self).data) + (fault == "size")
        if fault == "hangs":
            time.sleep(HANG_S)
        if fault == "hangs up":
            self.close_connection = True
            return
        if fault == "drips":
            with contextlib.suppress(OSError):
                for byte in b"HTTP/1.1 206 Partial Content":
                    self.wfile.write(bytes([byte]))
                    time.sleep(HANG_S / 20)
            self.close_connection = True
            return
        self.send_response(_BUSY.get(fault, 206))
        self.send_header("Content-Range", f"bytes {first + (fault == 'range')}-{last}/{total}")
        if fault == "too much":
            self.send_header("Transfer-Encoding", "chunked")
            body = b"%x\r\n%b\r\n" % (len(body), body) * 2
        else:
            self.send_header("Content-Length", str(len(body) - (fault == "short")))
        self.send_header("ETag", '"two"' if fault == "etag" else '"one"')
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "cuts" else body)
        self.close_connection = fault in ("cuts", "short", "too much")

    def log_message(self, *_: object) -> None:
        pass


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what some tests are about."""


@contextmanager
def range_server(data: bytes, context: ssl.SSLContext) -> Iterator[type[RangeServer]]:
    """The server's handler, whose ``url`` is where ``data`` lies."""
    fresh = {"data": data, "faults": {}, "redirects": {}, "ranges": [], "paths": [], "times": []}
    kind = type("Handler", (RangeServer,), fresh)
    with _Quiet(("127.0.0.1", 0), kind) as served:
        served.socket = context.wrap_socket(served.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        kind.url = f"https://127.0.0.1:{served.server_port}/m?secret=1"
        try:
            yield kind
        finally:
            served.shutdown()
            thread.join()
