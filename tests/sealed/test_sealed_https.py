"""Sealed models behind a web server: TLS is verified, only what is needed travels, every fault of a server is named."""

import itertools
import socket
import threading
import time

import numpy as np
import pytest

import sealed_kit as kit
from command_line import mibao
from mibao import sealed
from mibao.crypto.keys import encode_public
from mibao.errors import InputError, IntegrityError, ProtocolError
from mibao.sealed import opening, reading
from mibao.sealed.source_https import HttpsSource
from mibao.sealed.source_places import open_place
from tls_server import Authority, range_server

GOOD = kit.sealed_bytes()
OPEN = {"identity": kit.ALICE, "signer": kit.VENDOR.public}
HOST = r"^127\.0\.0\.1: "


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def server(authority):
    with range_server(GOOD, authority.context()) as kind:
        yield kind


@pytest.fixture
def connect(authority):
    """A source that trusts the test's authority and does not wait between attempts."""
    opened = []

    def make(url, **more):
        opened.append(HttpsSource(url, ca_file=authority.ca_file, **({"backoff_s": 0.0} | more)))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def load(source) -> bytes:
    opened = opening.open_file(source, opening.read_verified(source, signer=kit.VENDOR.public), kit.ALICE)
    part = opened.parts[0]
    out = bytearray(part.chunks.data_bytes)
    reading.decrypt_into(opened, part, range(len(part.chunks)), memoryview(out))
    return part.table.header + bytes(out)


def test_a_model_opens_over_ranges_as_from_a_file(server, connect):
    assert load(connect(server.url)) == kit.opened_parts(GOOD)[0]


def test_an_address_alone_is_enough_where_openssl_is_told_whom_to_trust(server, authority, monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    with sealed.open_model(server.url, **OPEN) as model:
        assert np.array_equal(model["bias"].numpy(), kit.tensors()["bias"])
    done = mibao("verify", server.url, "--signer", encode_public(kit.VENDOR.public), folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert sealed.inspect(server.url).model_id == "acme/tiny"


def test_a_source_of_the_callers_own_is_read_and_left_open(server, connect):
    source = connect(server.url)
    assert sealed.verify(source, signer=kit.VENDOR.public).chunks == 8
    assert sealed.open_bytes(source, **OPEN) == kit.opened_parts(GOOD)[0]
    with sealed.open_model(source, **OPEN) as model:
        assert len(model) == 5
    assert load(source) == kit.opened_parts(GOOD)[0]


def test_a_server_under_an_authority_that_is_not_trusted_is_refused(server):
    with pytest.raises(ProtocolError, match=HOST + r"connect: the server does not prove that it is this host"):
        HttpsSource(server.url)


def test_a_server_with_another_hosts_certificate_is_refused(server, connect):
    with pytest.raises(ProtocolError, match=r"^localhost: connect: the server does not prove that it is this host"):
        connect(server.url.replace("127.0.0.1", "localhost"))


def test_a_certificate_that_has_expired_is_refused(authority, connect):
    with (
        range_server(GOOD, authority.context(days=-1)) as server,
        pytest.raises(ProtocolError, match=HOST + r"connect: the server does not prove .*expired"),
    ):
        connect(server.url)


def test_nobody_is_trusted_for_a_file_without_certificates(tmp_path):
    (tmp_path / "ca.pem").write_text("none")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(InputError, match=rf"{name}: expected certificates in PEM$"):
            HttpsSource("https://127.0.0.1:1/m", ca_file=tmp_path / name)


@pytest.mark.parametrize("url", ["http://example.com/m", "http://127.0.0.1/m", "ftp://x/m"])
def test_addresses_without_tls_are_refused(url):
    for make in (HttpsSource, open_place):
        with pytest.raises(InputError):
            make(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https:///m", "with a host and without a user's name"),
        ("https://alice@127.0.0.1/m", "with a host and without a user's name"),
        ("https://127.0.0.1:99999/m", "not well formed"),
        ("https://[::1/m", "not well formed"),
        ("https://127.0.0.1/m odel", "of ASCII without spaces"),
        ("https://127.0.0.1/m\x00", "of ASCII without spaces"),
        ("https://127.0.0.1/模型", "of ASCII without spaces"),
    ],
)
def test_addresses_that_are_not_well_formed_are_refused(url, message):
    with pytest.raises(InputError, match=message):
        HttpsSource(url)


def test_only_the_bytes_needed_travel_and_none_of_them_twice(server, connect):
    with sealed.open_model(connect(server.url), **OPEN) as model:
        data_at = model.opened.envelope.preamble.data_at
        assert max(last for _, last in server.ranges) < data_at, "opening reads no data"
        server.ranges.clear()
        assert np.array_equal(model.rows("layer.weight", 0, 1), kit.tensors()["layer.weight"][:1])
        ((first, last),) = server.ranges
        assert last + 1 - first == kit.CHUNK_BYTES + 16
        server.ranges.clear()
        assert np.array_equal(model["bias"].numpy(), kit.tensors()["bias"])
        assert sum(last + 1 - first for first, last in server.ranges) == kit.tensors()["bias"].nbytes + 16
        server.ranges.clear()
        model.load_numpy()
        read = sorted(server.ranges)
        assert sum(last + 1 - first for first, last in read) == len(GOOD) - data_at
        assert all(before[1] < after[0] for before, after in itertools.pairwise(read))


@pytest.mark.parametrize("fault", ["busy", "slow down", "cuts", "hangs up", "hangs"])
def test_a_failure_that_passes_is_tried_again(server, connect, fault):
    load(connect(server.url))
    undisturbed = len(server.paths)
    server.faults = {undisturbed + number: fault for number in (1, 3, 5)}
    source = connect(server.url, timeout_s=0.3 if fault == "hangs" else 10.0, attempts=2)
    assert load(source) == kit.opened_parts(GOOD)[0]
    assert len(server.paths) == 2 * undisturbed + 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("busy", r"the server answers 503 \(3 attempts\)"),
        ("slow down", r"the server answers 429 \(3 attempts\)"),
        ("cuts", r"the server cut the answer off \(3 attempts\)"),
        ("hangs up", r"no answer \(RemoteDisconnected\) \(3 attempts\)"),
        ("hangs", r"no answer in time \(3 attempts\)"),
    ],
)
def test_a_failure_that_stays_is_tried_a_bounded_number_of_times_with_longer_pauses(server, connect, fault, message):
    source = connect(server.url, timeout_s=0.2 if fault == "hangs" else 10.0, attempts=3, backoff_s=0.03)
    server.always = fault
    with pytest.raises(ProtocolError, match=f"{HOST}read: {message}$") as caught:
        source.read_into(5, memoryview(bytearray(7)))
    assert server.ranges[1:] == [(5, 11)] * 3
    _, first, second, third = server.times
    assert second - first >= 0.03
    assert third - second >= 0.06
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("ignores", ProtocolError, "read: the server ignores ranges"),
        ("changed", ProtocolError, "read: the object changed while it was read"),
        ("etag", ProtocolError, "read: the object changed while it was read"),
        ("size", ProtocolError, "read: the object changed while it was read"),
        ("range", ProtocolError, "read: the server answers another range than it was asked for"),
        ("short", ProtocolError, "read: the server answers another range than it was asked for"),
        ("too much", ProtocolError, "read: the server answers another range than it was asked for"),
        ("gone", InputError, "read: the server answers 404"),
        ("forbidden", InputError, "read: the server answers 403"),
    ],
)
def test_a_servers_fault_is_named_at_once_and_its_address_is_not(server, connect, fault, error, message):
    server.always = fault
    with pytest.raises(error, match=f"{HOST}{message}$") as caught:
        load(connect(server.url))
    assert len(server.ranges) == 2
    assert "secret" not in str(caught.value)


def test_a_server_that_ignores_ranges_from_the_start_is_named(server, connect):
    server.faults = {1: "ignores"}
    with pytest.raises(ProtocolError, match=f"{HOST}read: the server ignores ranges$"):
        connect(server.url)


def test_a_host_that_never_answers_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/m"
        with pytest.raises(ProtocolError, match=HOST + r"read: no answer in time \(2 attempts\)$"):
            HttpsSource(url, timeout_s=0.1, attempts=2, backoff_s=0.0)
        port = silent.getsockname()[1]
    with pytest.raises(ProtocolError, match=HOST + r"read: no answer \(ConnectionRefusedError\)$"):
        HttpsSource(f"https://127.0.0.1:{port}/m", attempts=1)


def test_a_server_that_drips_its_headers_is_given_up(server, connect):
    source = connect(server.url, timeout_s=0.2, attempts=1)
    server.always = "drips"
    started = time.monotonic()
    with pytest.raises(ProtocolError, match=HOST + r"read: no answer in time$"):
        source.read_into(0, memoryview(bytearray(1)))
    assert time.monotonic() - started < 1.0


def test_a_server_without_tls_is_named():
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            connection, _ = plain.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ProtocolError, match=HOST + r"connect: TLS failed \(WRONG_VERSION_NUMBER\)$"):
            HttpsSource(f"https://127.0.0.1:{plain.getsockname()[1]}/m", timeout_s=5.0)
        thread.join()


def test_redirects_to_tls_are_followed_once_and_remembered(server, connect, authority):
    with range_server(GOOD, authority.context()) as mirror:
        server.redirects = {"/m": "/elsewhere", "/elsewhere": mirror.url}
        assert load(connect(server.url)) == kit.opened_parts(GOOD)[0]
        assert server.paths == ["/m", "/elsewhere"]
        assert len(mirror.ranges) > 8


def test_an_address_given_by_a_redirect_that_expires_is_asked_for_again(server, connect, authority):
    with range_server(GOOD, authority.context()) as mirror:
        server.redirects = {"/m": mirror.url}
        mirror.faults = {3: "forbidden"}
        assert load(connect(server.url)) == kit.opened_parts(GOOD)[0]
        assert server.paths == ["/m", "/m"]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://127.0.0.1:1/m", "the server redirects to an address that is not https://"),
        ("file:///etc/passwd", "the server redirects to an address that is not https://"),
        (None, "the server redirects nowhere"),
        ("https://[::1/m", "the server redirects to an address that is not well formed"),
        ("https://alice@127.0.0.1/m", "the server redirects to an address that is not well formed"),
        ("/m", "more than 5 redirects"),
    ],
)
def test_redirects_without_tls_or_without_end_are_refused(server, connect, location, message):
    server.redirects = {"/m": location}
    with pytest.raises(ProtocolError, match=f"{HOST}read: {message}$"):
        connect(server.url)
    assert len(server.paths) <= 6


def test_five_redirects_are_followed(server, connect):
    hops = ["/m", "/1", "/2", "/3", "/4"]
    server.redirects = dict(zip(hops, [*hops[1:], "/data"], strict=True))
    assert connect(server.url).size == len(GOOD)


def test_altered_bytes_behind_a_server_are_refused(server, connect):
    server.data = GOOD[:-1] + bytes([GOOD[-1] ^ 1])
    with pytest.raises(IntegrityError, match=r"^data: chunk 2 of tensor 'layer.weight' was altered$"):
        load(connect(server.url))


def test_a_model_exchanged_between_two_ranges_is_refused(server, connect):
    with sealed.open_model(connect(server.url), **OPEN) as model:
        server.data = kit.sealed_bytes(version=4, file_key=b"L" * 32)
        assert len(server.data) == len(GOOD), "neither size nor ETag tells"
        with pytest.raises(IntegrityError, match=r"^data: chunk 0 of tensor 'layer.other' was altered$"):
            model["layer.other"].numpy()


@pytest.mark.parametrize("given", [{"attempts": 0}, {"timeout_s": 0.0}, {"backoff_s": -1.0}])
def test_limits_that_make_no_sense_are_refused(given):
    with pytest.raises(InputError, match=r"^source: expected at least 1 attempt"):
        HttpsSource("https://127.0.0.1/m", **given)
