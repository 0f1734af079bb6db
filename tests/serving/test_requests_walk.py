"""Fuzzed conversations: not one byte of what was planted goes upstream, and everyone gets their own words back."""

import json
import random

import pytest

from counts import counts
from mibao.deid.detection import rules_engine
from mibao.deid.policies import PSEUDONYMS
from mibao.serving.answers import AnswerRestorer
from mibao.serving.configuration import SURROGATES
from mibao.serving.faults import Withheld
from mibao.serving.findings_cache import FindingsCache
from mibao.serving.placeholders import Names
from mibao.serving.requests_walk import RequestMasker
from mibao.serving.restoring import Restorer, Sent
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
