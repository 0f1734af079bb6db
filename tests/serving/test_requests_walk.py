"""Fuzzed conversations: not one byte of what was planted goes upstream, and everyone gets their own words back."""

import json
import random

import pytest

from counts import counts
from mibao.deid.detection import rules_engine
from mibao.deid.policies import PSEUDONYMS
from mibao.errors import InputError
from mibao.serving import gateway
from mibao.serving.answers import AnswerRestorer
from mibao.serving.configuration import SURROGATES, parse
from mibao.serving.faults import Withheld
from mibao.serving.findings_cache import FindingsCache
from mibao.serving.models import Models
from mibao.serving.placeholders import Names
from mibao.serving.requests_walk import RequestMasker
from mibao.serving.restoring import Restorer, Sent
from mibao.serving.upstreams import Upstream
from mibao.types import EntityType

CONVERSATIONS = counts(short=400, long=100_000)
TEMPLATES = [
    "Write to {}.",
    "{}",
    "我的联系方式是{}，谢谢",
    "a\n{}\nb",
    "<b>{}</b> and ({})",
    "**{}**, `{}`",
    '{{"x": "{}"}}',
    "{}的",
    "=\t{}\t=",
]


def luhn(digits: str) -> str:
    total = sum(
        sum(divmod(int(digit) * (2 if place % 2 == 0 else 1), 10)) for place, digit in enumerate(reversed(digits))
    )
    return digits + str(-total % 10)


def planted(chance: random.Random) -> str:
    digits = "".join(chance.choices("0123456789", k=16))
    return chance.choice(
        [
            f"{chance.choice(['li', 'anna', 'wei'])}{digits[:3]}@{chance.choice(['example.com', 'mail.example.cn'])}",
            f"13{digits[:9]}",
            f"+86 138 {digits[:4]} {digits[4:8]}",
            luhn("4" + digits[:14]),
            f"192.168.{int(digits[:2])}.{int(digits[2:4])}",
        ]
    )


def conversation(chance: random.Random) -> tuple[dict, list[str]]:
    values = [planted(chance) for _ in range(chance.randint(1, 4))]

    def text() -> str:
        return chance.choice(TEMPLATES).replace("{{", "{").replace("}}", "}").replace("{}", chance.choice(values))

    messages = []
    for _ in range(chance.randint(1, 4)):
        kind = chance.randint(0, 5)
        if kind == 0:
            arguments = json.dumps({"to": chance.choice(values), "list": [text()]}, ensure_ascii=chance.random() < 0.5)
            call = {"id": "call_a", "type": "function", "function": {"name": "send", "arguments": arguments}}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif kind == 1:
            messages.append(
                {"role": "user", "content": [{"type": "text", "text": text()}, {"type": "text", "text": text()}]}
            )
        elif kind == 2:
            messages.append(
                {"role": "tool", "tool_call_id": "call_a", "content": json.dumps({chance.choice(values): text()})}
            )
        else:
            messages.append({"role": chance.choice(["user", "assistant", "system"]), "content": text()})
    return {"messages": messages, "metadata": {"k": text()}, "stop": [text()]}, values


@pytest.mark.parametrize("policy", [PSEUDONYMS, SURROGATES], ids=lambda policy: policy.name)
def test_nothing_that_was_planted_goes_upstream_and_all_of_it_comes_back(policy):
    chance = random.Random(20261124)  # noqa: S311 - the same every time
    cache = FindingsCache(salt=b"s" * 32, engine=rules_engine())
    others = Names(scope_key=b"o" * 32, policy=policy)
    others.changed(EntityType.EMAIL_ADDRESS, "somebody@example.com")
    for number in range(CONVERSATIONS):
        body, values = conversation(chance)
        names = Names(scope_key=chance.randbytes(32), policy=policy)
        masker = RequestMasker(names, cache)
        masked = masker.mask(body)
        sent = json.dumps(masked, ensure_ascii=False)
        left = [value for value in values if value in sent]
        assert not left, (number, left)
        answer = AnswerRestorer(names, Sent(tuple(masker.texts)), json_mode=False, tool_allowed=lambda _: True)
        for before, after in zip(body["messages"], masked["messages"], strict=True):
            if isinstance(before["content"], str) and "://" not in before["content"]:
                back = answer.whole({"content": after["content"]})["content"]
                assert back == before["content"] or json.loads(back) == json.loads(before["content"]), number
        text = f"a {masker.texts[0]} b"
        cut = chance.randint(0, len(text))
        restorer = Restorer(names, Sent(()))
        once = Restorer(names, Sent(()))
        assert (
            restorer.feed(text[:cut]) + restorer.feed(text[cut:]) + restorer.close() == once.feed(text) + once.close()
        )
        other = Restorer(others, Sent(()))
        assert other.feed(text) + other.close() == text


def masked(body):
    masker = RequestMasker(Names(scope_key=b"k" * 32, policy=PSEUDONYMS), FindingsCache(salt=b"s" * 32))
    return masker.mask(body)


def test_what_is_no_text_stays():
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "temperature": 0.5,
        "seed": 42,
        "stream": True,
        "logit_bias": {"50256": -100},
        "response_format": {"type": "json_object"},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "strict": True,
                    "parameters": {
                        "type": "object",
                        "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}},
                        "required": ["city"],
                        "additionalProperties": False,
                    },
                },
            }
        ],
        "tool_choice": "auto",
        "reasoning_effort": "low",
        "service_tier": "auto",
    }
    assert masked(body) == body


def test_a_body_too_deep_is_refused():
    body = value = {}
    for _ in range(80):
        value["a"] = value = {}
    with pytest.raises(Withheld, match="at most 64 levels"):
        masked(body)


UPSTREAMS = {"a": Upstream(name="a", url="https://a.example/v1")}
PICTURE = "data:image/png;base64,iVBORw0KGgo="
SAID = {"role": "user", "content": "Write to Mr. Schwarzenegger"}


def sent(*messages, **more):
    return json.dumps(masked({"messages": list(messages), **more}), ensure_ascii=False)


def in_content(*parts):
    return {"messages": [{"role": "user", "content": list(parts)}]}


def called(arguments):
    return {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": arguments}}]}


@pytest.mark.parametrize(
    "more",
    [
        {"metadata": {"name": "Schwarzenegger"}},
        {"metadata": {"Schwarzenegger": "x"}},
        {"tools": [{"type": "function", "function": {"name": "Schwarzenegger", "parameters": {"type": "object"}}}]},
        {
            "tools": [
                {"name": "f", "input_schema": {"properties": {"Schwarzenegger": {}}, "required": ["Schwarzenegger"]}}
            ]
        },
        {"something": {"status": "x", "Schwarzenegger": 1}},
    ],
    ids=str,
)
def test_a_value_found_elsewhere_leaves_under_no_name_and_no_key(more):
    assert "Schwarzenegger" not in sent(SAID, **more)


@pytest.mark.parametrize("free", [{"name": "Schwarzenegger", "Schwarzenegger": 1}, {"id": "x-Schwarzenegger"}], ids=str)
def test_a_value_found_elsewhere_does_not_leave_in_what_a_tool_is_given(free):
    block = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": free}
    assert "Schwarzenegger" not in sent(SAID, {"role": "assistant", "content": [block]})
    assert "Schwarzenegger" not in sent(SAID, called(json.dumps(free)))


def test_names_in_free_json_are_text():
    assert "Anna Schmidt" not in sent(called('{"name": "Anna Schmidt"}'))
    block = {
        "type": "tool_use",
        "id": "toolu_1",
        "name": "f",
        "input": {"type": "thinking", "data": "13800138000=" * 6},
    }
    assert "13800138000" not in sent({"role": "assistant", "content": [block]})


def test_words_of_the_api_stay_though_a_password_says_the_same():
    body = {"messages": [{"role": "user", "content": "password: messages and password: assistant"}]}
    assert list(masked(body)) == ["messages"]
    assert masked(body)["messages"][0]["role"] == "user"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video_url", "video_url": {"url": "https://x.example/v"}},
        {"type": "audio_url", "audio_url": {"url": "https://x.example/a"}},
        {"type": "input_video", "data": "AAAA"},
        {"type": "container_upload", "file_id": "file_1"},
        {"image_url": {"url": "https://x.example/i"}},
        {"type": "new", "film_url": "https://x.example/f"},
        {"type": "new", "file_data": "AAAA"},
        {"type": "new", "source": {"type": "base64", "data": "AAAA"}},
        {"type": "text", "text": PICTURE},
        {"type": "document", "source": {"type": "base64", "data": "AAAA"}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "image", "source": {}}]}},
        {"type": "tool_result", "content": [{"type": "image", "source": {}}]},
    ],
    ids=str,
)
def test_an_attachment_is_refused_by_its_type_or_by_what_it_holds(part):
    with pytest.raises(Withheld, match="images, audio and files are refused"):
        masked(in_content(part))


def test_a_mask_for_a_made_up_image_is_an_attachment():
    with pytest.raises(Withheld, match="images, audio and files are refused"):
        masked({"input": "x", "tools": [{"type": "image_generation", "input_image_mask": {"file_id": "file_1"}}]})


@pytest.mark.parametrize(
    "body",
    [
        in_content({"type": "tool_use", "id": "t", "name": "f", "input": {"type": "file", "image_url": "x"}}),
        {"messages": [called('{"x":{"type":"document","file_id":"x"}}')]},
        {"tools": [{"name": "f", "input_schema": {"properties": {"file_id": {"type": "file"}}}}]},
        {"metadata": {"type": "image"}},
        {"tools": [{"type": "mcp", "server_label": "x", "server_url": "x"}]},
        {"input": [{"role": "assistant", "content": [
            {"type": "output_text", "text": "x", "annotations": [{"type": "file_citation", "file_id": "file_x"}]}]}]},
        in_content({"type": "text", "text": "x", "citations": [{"type": "char_location", "file_id": None}]}),
    ],
    ids=str,
)  # fmt: skip
def test_what_only_looks_like_an_attachment_passes(body):
    assert masked(body) == body


@pytest.mark.parametrize("attachments", [False, True])
def test_a_document_of_text_is_text(attachments):
    text = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Of jane@example.com"}}
    parts = {
        "type": "document",
        "source": {"type": "content", "content": [{"type": "text", "text": "Of li@example.com"}]},
    }
    names = Names(scope_key=b"k" * 32, policy=PSEUDONYMS)
    masker = RequestMasker(names, FindingsCache(salt=b"s" * 32), attachments=attachments)
    looked_at = json.dumps(masker.mask(in_content(text, parts)))
    assert "example.com" not in looked_at
    assert looked_at.count("EMAIL_ADDRESS_") == 2


def test_attachments_pass_unseen_where_they_may():
    body = in_content(
        {"type": "video_url", "video_url": {"url": PICTURE}}, {"type": "x", "file_id": "file_13800138000"}
    )
    masker = RequestMasker(
        Names(scope_key=b"k" * 32, policy=PSEUDONYMS), FindingsCache(salt=b"s" * 32), attachments=True
    )
    assert masker.mask(body) == body


def test_a_number_that_is_written_with_an_exponent_is_looked_at_in_digits():
    assert "4111111111111111" not in sent(
        called('{"card": 4.111111111111111e15}'), metadata={"card": 4.111111111111111e15}
    )
    assert masked({"metadata": {"x": 12345678.5, "y": 1e300}}) == {"metadata": {"x": 12345678.5, "y": 1e300}}


@pytest.mark.parametrize(
    "at", ["%40", "&#64;", "&#x40;", "&commat;", r"\x40", r"\u{40}", r"\u0040", "%2540", "&amp;#64;"]
)
def test_an_address_hides_behind_no_escape(at):
    looked_at = sent({"role": "user", "content": f"Write to jane.roe{at}example.com, please"})
    assert "jane.roe" not in looked_at
    assert "EMAIL_ADDRESS_" in looked_at


def test_escapes_that_hide_nothing_stay_as_they_are_written():
    text = r"100% of &lt;b&gt; at a%20b \x41 \u{110000}"
    assert masked({"input": text}) == {"input": text}
    looked_at = masked({"input": "&lt;b&gt; https://x.example/a%20b"})["input"]
    assert looked_at.startswith("&lt;b&gt; <URL_")
    looked_at = masked({"input": f"{text}, jane@example.com"})["input"]
    assert looked_at.startswith(text)
    assert "jane" not in looked_at


@pytest.mark.parametrize("field", ["user", "safety_identifier", "prompt_cache_key"])
def test_who_asks_is_replaced_as_a_number_and_in_a_list_too(field):
    looked_at = sent(**{field: 4711}) + sent(**{field: ["anna", [4712.0]]})
    assert not [each for each in ("4711", "4712", "anna") if each in looked_at]


def test_keys_and_numbers_count_as_what_takes_long_to_look_at():
    assert gateway._long({"a" * 20_000: None})
    assert gateway._long({"x": [0.5] * 2_000})
    assert not gateway._long({"messages": [{"role": "user", "content": "x"}], "seed": 1, "stream": True})


@pytest.mark.parametrize("model", ["jane@example.com", "x/jane.roe@mail.example.cn", "13800138000"])
def test_an_address_is_no_name_of_a_model(model):
    with pytest.raises(Withheld, match="expected a model's name"):
        Models([], UPSTREAMS).chosen(model, None)


@pytest.mark.parametrize("model", ["claude-3-5@20240620", "gpt-4.1", "a@v1.2", "org/name:tag"])
def test_a_version_is_part_of_the_name_of_a_model(model):
    assert Models([], UPSTREAMS).chosen(model, None).places == [(model, UPSTREAMS["a"])]


def test_a_policy_for_a_path_that_is_not_served_is_refused():
    told = '[[upstreams]]\nname = "a"\nurl = "https://a.example/v1"\n[privacy.routes]\n"{}" = "surrogates"\n'
    with pytest.raises(InputError, match=r"privacy\.routes: expected some of /v1/chat/.*, got /v1/embedings"):
        parse(told.format("/v1/embedings"), source="x.toml")
    parse(told.format("/v1/embeddings"), source="x.toml")
    parse('allow = ["/v1/moderations"]\n' + told.format("/v1/moderations"), source="x.toml")
