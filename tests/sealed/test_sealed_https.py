"""Sealed models behind a web server: only what is needed travels, and every fault of a server is named."""

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import sealed_kit as kit
from mibao import sealed
from mibao.errors import InputError, IntegrityError, ProtocolError
from mibao.sealed import opening, reading, source_places
from mibao.sealed.source_https import HttpsSource, LoopbackHttpSource
from mibao.sealed.source_places import open_place

GOOD = kit.sealed_bytes()


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    data, fault, sent, requests, etag = GOOD, "", 0, 0, '"one"'

    def do_GET(self):
        kind = type(self)
        kind.requests += 1
        fault = kind.fault if kind.requests > 1 or kind.fault == "ignores" else ""
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        body, total = kind.data[first : last + 1], len(kind.data)
        if fault == "hangs":
            time.sleep(1.5)
        status = {"ignores": 200, "changed": 412}.get(fault, 206)
        self.send_response(status)
        total += fault == "size"
        self.send_header("Content-Range", f"bytes {first + (fault == 'range')}-{last}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"two"' if fault == "etag" else kind.etag)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "cuts" else body)
        kind.sent += len(body)
        self.close_connection = fault == "cuts"

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    kind = type("Handler", (Server,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        kind.url = f"http://127.0.0.1:{served.server_port}/m.mibao?secret=1"
        yield kind
        served.shutdown()
        thread.join()


def load(source) -> bytes:
    opened = opening.open_file(source, opening.read_verified(source, signer=kit.VENDOR.public), kit.ALICE)
    part = opened.parts[0]
    out = bytearray(part.chunks.data_bytes)
    reading.decrypt_into(opened, part, range(len(part.chunks)), memoryview(out))
    return part.table.header + bytes(out)


def test_a_model_opens_over_ranges_as_from_a_file(server):
    source = LoopbackHttpSource(server.url)
    assert load(source) == kit.opened_parts(GOOD)[0]
    source.close()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("ignores", "the server ignores ranges"),
        ("changed", "the object changed while it was read"),
        ("etag", "the object changed while it was read"),
        ("size", "the object changed while it was read"),
        ("range", "another range than it was asked for"),
        ("cuts", "the server cut the answer off"),
        ("hangs", "no answer in time"),
    ],
)
def test_a_servers_fault_is_named_and_its_address_is_not(server, fault, message):
    server.fault = fault
    with pytest.raises(ProtocolError, match=message) as caught:
        load(LoopbackHttpSource(server.url, timeout_s=0.5))
    assert "secret" not in str(caught.value)


def test_altered_bytes_behind_a_server_are_refused(server):
    server.data = GOOD[:-1] + bytes([GOOD[-1] ^ 1])
    source = LoopbackHttpSource(server.url)
    with pytest.raises(IntegrityError, match=r"^data: chunk 2 of tensor"):
        load(source)
    source.close()


@pytest.mark.parametrize("url", ["http://example.com/m", "http://127.0.0.2/m", "ftp://x/m"])
def test_addresses_without_tls_are_refused(url):
    for make in (HttpsSource, LoopbackHttpSource, open_place):
        with pytest.raises(InputError):
            make(url)


def test_only_the_bytes_needed_travel_for_rows_and_an_alteration_elsewhere_does_not_show(server, monkeypatch):
    monkeypatch.setattr(source_places, "FileSource", lambda _: LoopbackHttpSource(server.url))
    with sealed.open_model("m.mibao", identity=kit.ALICE, signer=kit.VENDOR.public) as model:
        server.sent = 0
        assert (model.rows("layer.weight", 0, 1) == kit.tensors()["layer.weight"][:1]).all()
        assert server.sent == kit.CHUNK_BYTES + 16
    assert sealed.verify("m.mibao", signer=kit.VENDOR.public).chunks == 8
    assert sealed.inspect("m.mibao").model_id == "acme/tiny"
