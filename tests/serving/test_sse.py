"""Server-sent events: the same however they are cut, and never without end."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibao.serving import sse
from mibao.serving.faults import Withheld
from mibao.serving.sse import Decoder, Event

TEXTS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))


@given(
    events=st.lists(st.tuples(st.sampled_from(["", "delta"]), st.lists(TEXTS, min_size=1))),
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    data=st.data(),
)
def test_events_are_the_same_however_their_bytes_are_cut_and_their_lines_end(events, end, data):
    sent = [Event(name, "\n".join(lines)) for name, lines in events]
    encoded = b"".join(event.encode() for event in sent).replace(b"\n", end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)))))
    decoder = Decoder()
    pieces = [encoded[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(encoded)], strict=True)]
    assert [event for piece in pieces for event in decoder.feed(piece)] + decoder.close() == sent


def test_comments_and_what_names_no_event_are_dropped():
    assert Decoder().feed(b": ping\n\nid: 1\nretry: 5\n\nevent: a\r\ndata: x\r\n\r\n") == [Event("a", "x")]


def test_cr_and_lf_that_come_apart_are_one_end_of_a_line():
    decoder = Decoder()
    assert decoder.feed(b"data: x\r") == []
    assert decoder.feed(b"\ndata: y\r") == []
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"\r") == [Event("", "x\ny")]


def test_a_line_in_pieces_takes_time_by_its_length_and_not_by_its_square():
    took_s = []
    for length in (1 << 18, 1 << 20):
        began_s, decoder = time.process_time(), Decoder()
        for _ in range(length // 64):
            decoder.feed(b"x" * 64)
        took_s.append(time.process_time() - began_s)
    assert took_s[1] < 9 * took_s[0] + 0.05  # four times as long; sixteen times by the square


@pytest.mark.parametrize("line", [b"data: " + b"x" * 1000 + b"\n", b"x" * 1000])
def test_an_event_without_end_is_refused(monkeypatch, line):
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 10_000)
    decoder = Decoder()
    with pytest.raises(Withheld, match="too long"):
        for _ in range(11):
            decoder.feed(line)


def test_what_is_no_utf8_is_refused():
    with pytest.raises(Withheld, match=r"no UTF-8"):
        Decoder().feed(b"data: \xff\n")
