"""A sealed model on a web server, read by ranges: only the bytes that are needed travel.

TLS is verified, and no byte is believed for it: the signature and the hashes decide. What is checked here makes a
server's fault an error that says so.

Source: RFC 9110, sections 13, 14 and 15.4.
"""

from __future__ import annotations

import http.client
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urljoin, urlsplit

from mibao.errors import InputError, ProtocolError
from mibao.sealed.files import StrPath

TIMEOUT_S = 30.0
ATTEMPTS = 4
BACKOFF_S = 0.5
MAX_REDIRECTS = 5
SLOWEST_BYTES_PER_S = 1 << 14  # a server that drips is a server that hangs
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
_PIECE = 1 << 16
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_EXPIRED = frozenset({401, 403, 404, 410})  # what a signed address that a redirect gave answers later
_CHANGED = "the object changed while it was read"
_OTHER_RANGE = "the server answers another range than it was asked for"


class _TransientError(Exception):
    """A failure that may be gone at the next attempt."""


class _Address:
    """One host and what to ask it for, with the connections to it that are idle."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            self.url, self.host, self.port = url, parts.hostname or "", parts.port
        except ValueError as error:
            raise InputError("source: expected an address, got one that is not well formed") from error
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not self.host or parts.username is not None:
            raise InputError("source: expected an address with a host and without a user's name")
        if not self.target.isascii() or not self.target.isprintable() or " " in self.target:
            raise InputError("source: expected an address of ASCII without spaces: write others as %20 and the like")
        self.idle: queue.SimpleQueue[http.client.HTTPSConnection] = queue.SimpleQueue()

    def close(self) -> None:
        while True:
            try:
                self.idle.get_nowait().close()
            except queue.Empty:
                return


class HttpsSource:
    """One object behind an ``https://`` address. Addresses are not shown in errors beyond the host: they hold secrets.

    The server's certificate is verified against the system's authorities. To trust another one name its certificate
    in PEM: ``ca_file`` here, or ``SSL_CERT_FILE`` in the environment, which OpenSSL reads. At most five redirects are
    followed, to ``https://`` only.

    Args:
        ca_file: The certificates to trust in place of the system's.
        timeout_s: How long a server may be silent, and how long it may take in all beyond 16 KiB/s.
        attempts: How often a range is asked for before a server that is busy, gone or hanging is an error.
        backoff_s: The pause before the second attempt; it doubles for each one after.

    Raises:
        InputError: not an ``https://`` address, the server has no such object, or ``ca_file`` holds no certificates.
        ProtocolError: the server cannot be reached, does not prove who it is, or does not answer ranges.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: StrPath | None = None,
        timeout_s: float = TIMEOUT_S,
        attempts: int = ATTEMPTS,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        if not url.startswith("https://"):
            raise InputError("source: expected an address that begins with https://")
        if attempts < 1 or timeout_s <= 0 or backoff_s < 0:
            raise InputError("source: expected at least 1 attempt, a time limit, and no negative pause")
        try:
            self._context = ssl.create_default_context(cafile=ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise InputError(f"{ca_file}: expected certificates in PEM") from error
        self._timeout_s, self._attempts, self._backoff_s = timeout_s, attempts, backoff_s
        self._given = self._address = _Address(url)
        self._etag: str | None = None
        self.size = 1
        try:
            self.size = self._fetch(0, memoryview(bytearray(1)), first=True)
        except BaseException:
            self.close()
            raise

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill ``out`` from ``offset`` on.

        Raises:
            ProtocolError: the server is gone, hangs, ignores ranges, cuts off, or the object changed.
        """
        if out.nbytes:
            self._fetch(offset, out.cast("B"), first=False)

    def close(self) -> None:
        """Close the connections."""
        self._given.close()
        self._address.close()

    def _fetch(self, offset: int, out: memoryview, *, first: bool) -> int:
        """Fill ``out``; the size of the object as the server says it."""
        for attempt in range(1, self._attempts + 1):
            try:
                return self._follow(offset, out, first=first)
            except _TransientError as error:
                self._move(self._given)  # where a redirect led may have expired
                if attempt == self._attempts:
                    tried = f" ({attempt} attempts)" if attempt > 1 else ""
                    raise ProtocolError(f"{self._given.host}: read: {error}{tried}") from error
                time.sleep(self._backoff_s * 2 ** (attempt - 1))
        raise AssertionError

    def _follow(self, offset: int, out: memoryview, *, first: bool) -> int:
        """One attempt, over as many redirects as are allowed."""
        address = self._address
        for _ in range(MAX_REDIRECTS + 1):
            found = self._ask(address, offset, out, first=first)
            if isinstance(found, int):
                self._move(address)
                return found
            address = found
        raise ProtocolError(f"{address.host}: read: more than {MAX_REDIRECTS} redirects")

    def _move(self, address: _Address) -> None:
        if address is not self._address:
            before, self._address = self._address, address
            before.close()

    def _ask(self, address: _Address, offset: int, out: memoryview, *, first: bool) -> int | _Address:
        """Fill ``out``, for the object's size; or the address to which the server leads."""
        headers = {"Range": f"bytes={offset}-{offset + out.nbytes - 1}", "Accept-Encoding": "identity"}
        if self._etag is not None:
            headers["If-Match"] = self._etag
        connection = self._connection(address)
        done = False
        try:
            connection.request("GET", address.target, headers=headers)
            with _hung_up_after(self._timeout_s, connection.sock):  # the socket's own limit is for each byte of it
                answer = connection.getresponse()
            if answer.status in _REDIRECTS:
                return _redirected(address, answer.getheader("Location"))
            size = self._check(address, answer, offset, out.nbytes, first=first)
            self._receive(answer, out)
            if answer.read(1):
                raise ProtocolError(f"{address.host}: read: {_OTHER_RANGE}")
            done = True
            return size
        except TimeoutError as error:
            raise _TransientError("no answer in time") from error
        except ssl.SSLCertVerificationError as error:
            why = f"the server does not prove that it is this host ({error.verify_message})"
            raise ProtocolError(f"{address.host}: connect: {why}") from error
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise _TransientError("the server hung up") from error
        except ssl.SSLError as error:
            raise ProtocolError(f"{address.host}: connect: TLS failed ({error.reason})") from error
        except (OSError, http.client.HTTPException) as error:
            raise _TransientError(f"no answer ({type(error).__name__})") from error
        finally:
            if done and address is self._address:
                address.idle.put(connection)
            else:
                connection.close()

    def _connection(self, address: _Address) -> http.client.HTTPSConnection:
        try:
            return address.idle.get_nowait()
        except queue.Empty:
            return http.client.HTTPSConnection(
                address.host, address.port, timeout=self._timeout_s, context=self._context
            )

    def _check(
        self, address: _Address, answer: http.client.HTTPResponse, offset: int, count: int, *, first: bool
    ) -> int:
        status, host = answer.status, address.host
        if status in _BUSY or (status in _EXPIRED and address is not self._given):
            raise _TransientError(f"the server answers {status}")
        if status == 412 or (status == 416 and not first):
            raise ProtocolError(f"{host}: read: {_CHANGED}")
        if status == 200:
            raise ProtocolError(f"{host}: read: the server ignores ranges")
        if status != 206:
            raise InputError(f"{host}: read: the server answers {status}")
        found = _RANGE.fullmatch(answer.getheader("Content-Range", ""))
        if found is None or (int(found[1]), int(found[2])) != (offset, offset + count - 1):
            raise ProtocolError(f"{host}: read: {_OTHER_RANGE}")
        if answer.getheader("Content-Length", str(count)) != str(count):
            raise ProtocolError(f"{host}: read: {_OTHER_RANGE}")
        etag = answer.getheader("ETag")
        if first:
            self._etag = etag if etag is not None and not etag.startswith("W/") else None
        elif int(found[3]) != self.size or (self._etag is not None and etag != self._etag):
            raise ProtocolError(f"{host}: read: {_CHANGED}")
        return int(found[3])

    def _receive(self, answer: http.client.HTTPResponse, out: memoryview) -> None:
        deadline = time.monotonic() + self._timeout_s + out.nbytes / SLOWEST_BYTES_PER_S
        done = 0
        while done < out.nbytes:
            count = answer.readinto(out[done : done + _PIECE])
            if count == 0:
                raise _TransientError("the server cut the answer off")
            done += count
            if time.monotonic() > deadline:
                raise _TransientError("no answer in time")


def _redirected(address: _Address, location: str | None) -> _Address:
    what = "nowhere" if location is None else "to an address that is not https://"
    try:
        found = urljoin(address.url, location or "")
        if location is not None and found.startswith("https://"):
            return _Address(found)
    except (ValueError, InputError):
        what = "to an address that is not well formed"
    raise ProtocolError(f"{address.host}: read: the server redirects {what}")


@contextmanager
def _hung_up_after(limit_s: float, connected: socket.socket) -> Iterator[None]:
    """For the time of the block, a limit after which whoever reads from the socket gets a ``TimeoutError``."""
    late = threading.Event()

    def hang_up() -> None:
        late.set()
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(limit_s, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        if late.is_set():
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
