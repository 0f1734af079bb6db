"""A sealed model on a web server, read by ranges: only the bytes that are needed travel.

TLS is verified, and no byte is believed for it: the signature and the hashes decide. What is checked here makes a
server's fault an error that says so.

Source: RFC 9110, sections 13 and 14.
"""

from __future__ import annotations

import http.client
import queue
import re
import ssl
import time
from urllib.parse import urlsplit

from mibao.errors import InputError, ProtocolError

TIMEOUT_S = 30.0
SLOWEST_BYTES_PER_S = 1 << 14  # a server that drips is a server that hangs
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
_PIECE = 1 << 16


class HttpsSource:
    """One object behind an ``https://`` address. Addresses are not shown in errors beyond the host: they hold secrets.

    Raises:
        InputError: not an ``https://`` address, or the server has no such object.
        ProtocolError: the server cannot be reached, does not prove who it is, or does not answer ranges.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        if urlsplit(url).scheme != "https":
            raise InputError("source: expected an address that begins with https://")
        self._begin(url, ssl.create_default_context(), timeout_s)

    def _begin(self, url: str, context: ssl.SSLContext | None, timeout_s: float) -> None:
        parts = urlsplit(url)
        if not parts.hostname or parts.username is not None:
            raise InputError("source: expected an address with a host and without a user's name")
        self._host, self._port, self._context = parts.hostname, parts.port, context
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout_s = timeout_s
        self._idle: queue.SimpleQueue[http.client.HTTPConnection] = queue.SimpleQueue()
        self._etag: str | None = None
        self.size = 1
        self.size = self._fetch(0, memoryview(bytearray(1)), first=True)

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill ``out`` from ``offset`` on.

        Raises:
            ProtocolError: the server is gone, hangs, ignores ranges, cuts off, or the object changed.
        """
        if out.nbytes:
            self._fetch(offset, out.cast("B"), first=False)

    def close(self) -> None:
        """Close the connections."""
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def _connection(self) -> http.client.HTTPConnection:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            if self._context is None:
                return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._context)

    def _fetch(self, offset: int, out: memoryview, *, first: bool) -> int:
        """Fill ``out``; the size of the object as the server says it."""
        connection = self._connection()
        headers = {"Range": f"bytes={offset}-{offset + out.nbytes - 1}", "Accept-Encoding": "identity"}
        if self._etag is not None:
            headers["If-Match"] = self._etag
        try:
            connection.request("GET", self._target, headers=headers)
            answer = connection.getresponse()
            size = self._check(answer, offset, out.nbytes, first=first)
            self._receive(answer, out)
            answer.read()
        except BaseException as error:
            connection.close()
            if isinstance(error, TimeoutError):
                raise ProtocolError(f"{self._host}: read: no answer in time") from error
            if isinstance(error, ssl.SSLError):
                raise ProtocolError(f"{self._host}: connect: TLS failed ({error.reason})") from error
            if isinstance(error, OSError | http.client.HTTPException):
                raise ProtocolError(f"{self._host}: read: {type(error).__name__}") from error
            raise
        self._idle.put(connection)
        return size

    def _check(self, answer: http.client.HTTPResponse, offset: int, count: int, *, first: bool) -> int:
        if answer.status == 412:
            raise ProtocolError(f"{self._host}: read: the object changed while it was read")
        if answer.status == 200:
            raise ProtocolError(f"{self._host}: read: the server ignores ranges")
        if answer.status != 206:
            raise InputError(f"{self._host}: read: the server answers {answer.status}")
        found = _RANGE.fullmatch(answer.getheader("Content-Range", ""))
        length = answer.getheader("Content-Length", str(count))
        if found is None or (int(found[1]), int(found[2])) != (offset, offset + count - 1) or length != str(count):
            raise ProtocolError(f"{self._host}: read: the server answers another range than it was asked for")
        etag = answer.getheader("ETag")
        if first:
            self._etag = etag if etag is not None and not etag.startswith("W/") else None
        elif int(found[3]) != self.size or (self._etag is not None and etag != self._etag):
            raise ProtocolError(f"{self._host}: read: the object changed while it was read")
        return int(found[3])

    def _receive(self, answer: http.client.HTTPResponse, out: memoryview) -> None:
        deadline = time.monotonic() + self._timeout_s + out.nbytes / SLOWEST_BYTES_PER_S
        done = 0
        while done < out.nbytes:
            count = answer.readinto(out[done : done + _PIECE])
            if count == 0:
                raise ProtocolError(f"{self._host}: read: the server cut the answer off")
            done += count
            if time.monotonic() > deadline:
                raise ProtocolError(f"{self._host}: read: no answer in time")


class LoopbackHttpSource(HttpsSource):
    """One object of a server on 127.0.0.1 without TLS, for tests.

    Raises:
        InputError: another address than ``http://127.0.0.1:...``.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        if urlsplit(url).scheme != "http" or urlsplit(url).hostname != "127.0.0.1":
            raise InputError("source: expected an address that begins with http://127.0.0.1")
        self._begin(url, None, timeout_s)
