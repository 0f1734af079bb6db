import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibao.codec import frames
from mibao.codec.frames import Frame
from mibao.errors import InputError, IntegrityError

MAGIC = b"TEST"


@given(payloads=st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=30)), max_size=4))
def test_frames_laid_end_to_end_come_back_in_order(payloads: list[tuple[int, bytes]]) -> None:
    data = b"".join(frames.encode(Frame(magic=MAGIC, version=1, kind=k, payload=p)) for k, p in payloads)
    start, found = 0, []
    while start < len(data):
        frame, start = frames.decode_from(data, start, magic=MAGIC, version=1, max_bytes=30)
        found.append((frame.kind, frame.payload))
    assert found == payloads


SOUND = frames.encode(Frame(magic=MAGIC, version=1, kind=2, payload=b"hello"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SOUND[:9], "shorter than its header"),
        (b"", "shorter than its header"),
        (b"REST" + SOUND[4:], "expected b'TEST' at its start"),
        (SOUND[:4] + b"\x02" + SOUND[5:], "expected version 1, got 2"),
        (SOUND[:-1], "truncated, 5 bytes announced, 4 present"),
        (SOUND + b"x", "1 bytes after the end"),
        (SOUND[:6] + b"\xff\xff\xff\xff" + SOUND[10:], "at most 5 bytes of payload, got 4294967295"),
    ],
)
def test_one_fault_each_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(IntegrityError, match=reason):
        frames.decode(data, magic=MAGIC, version=1, max_bytes=5)


@pytest.mark.parametrize("change", [{"magic": b"LONGER"}, {"version": 256}, {"kind": -1}])
def test_a_frame_that_does_not_fit_its_header_is_not_written(change: dict[str, object]) -> None:
    arguments = {"magic": MAGIC, "version": 1, "kind": 2, "payload": b""} | change
    with pytest.raises(InputError, match="expected a magic of 4 bytes and one byte each"):
        frames.encode(Frame(**arguments))
