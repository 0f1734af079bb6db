import random
import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.deid import Masker, Operator, Pseudonymiser, Vault, detect, mask, parse_policy, parse_types, restore
from mibao.deid.custom import VALIDATORS
from mibao.deid.custom_patterns import LONGEST, parse_pattern
from mibao.deid.kinds import SCORE_BESIDE_CONTEXT, Rule
from mibao.deid.matching_hyperscan import HyperscanEngine
from mibao.deid.matching_re import ReEngine
from mibao.deid.policies import REPLACE
from mibao.errors import InputError
from mibao.types import CustomType, EntityType, type_named

KEY = bytes(range(32))
FILE = """
[[type]]
name = "STAFF_BADGE"
pattern = 'HB-[0-9]{6}'
context = ["badge", "工牌"]
deny = ["Badge Zero"]
allow = ["HB-000000"]
replacement = "[badge]"

[[type]]
name = "MEMBER"
pattern = ['[0-9]{8}', '[0-9]{4}-[0-9]{4}']
validator = "luhn"
needs_context = true
context = ["member", "会员"]
score = 0.7

[[type]]
name = "PERSON"
deny = ["Zaphod"]
allow = ["Chen"]
"""
TYPES = parse_types(FILE, source="own.toml")
_PIECES = st.sampled_from(
    ["HB-123456", "HB-000000", "ＨＢ－１２３４５６", "hb-123456", "badge ", "工牌", "Badge Zero", "Zaphod", "Dr. Chen",
     "M", "member ", "会员", "12345674", "1234-5674", "的", " ", "x", "-", "\u200b", "13800138000",
     "<STAFF_BADGE_0000000000>"]
)  # fmt: skip
TEXTS = st.lists(_PIECES | st.text(max_size=2), max_size=10).map("".join)
FIXED = settings(
    max_examples=counts(short=60, long=5000), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def _found(text: str) -> list[tuple[str, str]]:
    return [(found.type.value, text[found.start : found.end]) for found in detect(text, types=TYPES)]


@FIXED
@given(TEXTS)
def test_both_engines_find_the_same_and_restoring_gives_back_the_text(text: str) -> None:
    own = [rule for kind in TYPES.kinds for rule in kind.rules]
    slow, fast = ReEngine(own).candidates(text), HyperscanEngine(own).candidates(text)
    key = lambda each: (each.start, each.end, each.rule)  # noqa: E731
    assert sorted(slow, key=key) == sorted(fast, key=key)
    vault = Vault(scope_key=KEY)
    assert restore(mask(text, vault=vault, types=TYPES).text, vault=vault).text == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("wears HB-123456.", [("STAFF_BADGE", "HB-123456")]),
        ("工牌ＨＢ－１２３４５６的", [("STAFF_BADGE", "ＨＢ－１２３４５６")]),
        ("AHB-123456, HB-1234567, HB-000000", []),
        ("badge zero!", [("STAFF_BADGE", "badge zero")]),
        ("member 12345674", [("MEMBER", "12345674")]),
        ("会员1234-5674", [("MEMBER", "1234-5674")]),
        ("member 12345675", []),
        ("row 12345674", []),
        ("Zaphod and Dr. Chen and Dr. Ford", [("PERSON", "Zaphod"), ("PERSON", "Ford")]),
    ],
)
def test_pattern_validator_context_and_lists_decide(text: str, found: list[tuple[str, str]]) -> None:
    assert [each for each in _found(text) if each[0] in {"STAFF_BADGE", "MEMBER", "PERSON"}] == found


@pytest.mark.parametrize(
    "text",
    [
        "Yesterday Sarah Connor flew to Boston, said Acme Holdings.",
        "昨天王建国在上海见了李小龙，地址是浙江省杭州市西湖区文三路90号。",
        "Dr. Chen, 13800138000, a@b.example",
    ],
)
def test_what_is_found_without_types_of_ones_own_is_found_with_them(text: str) -> None:
    own = parse_types('[[type]]\nname = "BADGE"\npattern = "HB-[0-9]{6}"', source="own.toml")
    assert detect(text, types=own) == detect(text)


def test_a_word_beside_it_raises_the_score_and_the_reason_names_the_type() -> None:
    badge = CustomType("STAFF_BADGE")
    alone, beside = (
        next(found for found in detect(text, types=TYPES) if found.type == badge)
        for text in ("HB-123456", "工牌：HB-123456")
    )
    assert (alone.score, beside.score) == (0.85, pytest.approx(0.85 + SCORE_BESIDE_CONTEXT))
    assert alone.why == "pattern of the type STAFF_BADGE"
    assert alone.type == CustomType("STAFF_BADGE") == type_named("STAFF_BADGE")


def test_the_replacement_stands_unless_the_policy_says_otherwise() -> None:
    def masked(policy) -> str:  # type: ignore[no-untyped-def]
        masker = Masker(
            Operator(TYPES.applied_to(policy), scope_key=KEY), engine=TYPES.engine, detectors=TYPES.detectors
        )
        return masker.feed("HB-123456 Zaphod") + masker.close()

    assert masked(REPLACE) == "[badge] <PERSON>"
    own = parse_policy('name = "p"\n[types.STAFF_BADGE]\nhow = "mask"\nlast = 2', source="p", types=TYPES.names)
    assert masked(own) == "**-****56 <PERSON>"


def test_pseudonyms_carry_the_name_of_the_type_and_records_do_not() -> None:
    vault = Vault(scope_key=KEY)
    done = mask("HB-123456", vault=vault, types=TYPES)
    assert re.fullmatch("<STAFF_BADGE_[0-9A-Z]{10}>", done.text)
    assert [event.entity for event in done.events] == [EntityType.CUSTOM]
    assert Pseudonymiser(key=KEY, scope="x").restore(done.text) == done.text


def _random_pattern(draw: random.Random, depth: int = 0) -> str:
    parts = []
    for _ in range(draw.randint(1, 3)):
        atom = draw.choice(["a", "B", "1", "-", r"\.", "[0-9]", "[a-c1]", r"\d", "证", "[一-龥]", r"[\w-]", "x y"])
        if depth < 2 and draw.random() < 0.3:
            atom = f"({_random_pattern(draw, depth + 1)}|{_random_pattern(draw, depth + 1)})"
        parts.append(atom + draw.choice(["", "", "", "?", "{2}", "{1,3}", "{0,2}"]))
    return "".join(parts)


def test_patterns_that_are_accepted_mean_what_re_says_on_both_engines() -> None:
    draw = random.Random(5)  # noqa: S311
    tried = 0
    for _ in range(counts(short=150, long=2000)):
        source = _random_pattern(draw)
        try:
            accepted = parse_pattern(source)
        except ValueError:
            continue
        rule = Rule(
            entity=EntityType.CUSTOM, pattern=re.compile(accepted.text, re.ASCII), judge=lambda m: (*m.span(1), 0.5, "")
        )
        for _ in range(8):
            text = "".join(draw.choices("aaB11-.证龥bc x y", k=draw.randint(1, 14)))
            bounded = f"(?<![0-9A-Za-z])(?:{source})(?![0-9A-Za-z])"
            expected = {
                found.span() for at in range(len(text)) if (found := re.compile(bounded, re.ASCII).match(text, at))
            }
            for engine in (ReEngine([rule]), HyperscanEngine([rule])):
                assert {(each.start, each.end) for each in engine.candidates(text)} == expected, (source, text)
        tried += 1
    assert tried > 30


@pytest.mark.parametrize(
    "pattern",
    ["(?:a|ab|b){2,9}c", "[a-z]{1,20}[.]?[a-z]{1,20}@[a-z]{2,12}", "(?:[0-9] ?){11}", "(?:[a-z]{1,4}-){1,9}[0-9]"],
)
def test_time_is_linear_in_hostile_texts(pattern: str) -> None:
    try:
        compiled = re.compile(parse_pattern(pattern).text, re.ASCII)
    except ValueError:
        assert pattern.startswith("(?:a|ab")
        return
    engine = ReEngine([Rule(entity=EntityType.CUSTOM, pattern=compiled, judge=lambda m: (*m.span(1), 0.5, ""))])
    for piece in ("a", "aa.", "a-", "1 ", "ab"):
        started = time.process_time()
        engine.candidates(piece * 2000)
        assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a.b", "at symbol 2: a dot: name the characters, as in [0-9A-Z]"),
        ("a+", "at symbol 2: + has no end: write {m,n}"),
        ("a{2,}", "at symbol 2: {2,} has no end: write {m,n}"),
        ("[^a]b", "at symbol 2: a negated class: name the characters that may stand there"),
        (r"(ab)\1", "at symbol 5: a reference to a group"),
        (r"\bab", "at symbol 1: \\b: its ends are bounded already; `inside_words` lifts that"),
        ("^ab", "at symbol 1: ^: a finding may stand anywhere; leave it out, or write \\^"),
        ("(?<=a)b", "at symbol 1: a look-around: its ends are bounded already, and `context` looks beside"),
        ("(?i)ab", "at symbol 2: a group with a setting: write (...) or (?:...)"),
        ("a??b", "at symbol 3: a second quantifier"),
        ("(a?){9}b", "at symbol 8: a repetition of what may be empty"),
        ("(?:a|aa){20}", "it can read one text in more than 1024 ways, which takes too long on some texts: "
         "let repetitions that follow one another take different characters"),
        ("[0-9]{9,90}", f"it may match 90 characters, expected at most {LONGEST}"),
        ("a?b?", "it may match less than two characters"),
        ("(ab", "at symbol 4: expected )"),
        ("ab)", "at symbol 3: a bracket that was not opened"),
        ("[ab", "at symbol 4: expected ]"),
        ("[z-a]b", "at symbol 5: a range that does not rise, or that leaves ASCII"),
        (r"a\q", "at symbol 2: \\q: expected one of \\d \\w \\s \\t \\n or an escaped sign"),
    ],
)  # fmt: skip
def test_what_the_engines_cannot_take_is_refused_by_name(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_pattern(pattern)
    with pytest.raises(InputError, match=f"^own.toml: type BAD: pattern {re.escape(repr(pattern))}: "):
        parse_types(f"[[type]]\nname = \"BAD\"\npattern = '{pattern}'", source="own.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[type]", "t.toml: Expected ']]' at the end of an array declaration"),
        ("", "t.toml: expected 1 to 200 tables [[type]], and nothing else"),
        ("x = 1", "t.toml: expected 1 to 200 tables [[type]], and nothing else"),
        ('[[type]]\npattern = "ab"', "t.toml: type 1: Object missing required field `name`"),
        ('[[type]]\nname = "lower"\ndeny = ["a"]', "t.toml: type lower: name: expected a name of 2 to 32 characters"),
        ('[[type]]\nname = "AB"', "t.toml: type AB: expected pattern, deny or allow, by which it is found"),
        ('[[type]]\nname = "AB"\ndeny = ["a"]\nscore = 2', "t.toml: type AB: score: expected more than 0 and at most"),
        ('[[type]]\nname = "AB"\ndeny = ["a"]\nscore = "x"', "t.toml: type AB: score: Expected `float`, got `str`"),
        ('[[type]]\nname = "AB"\ndeny = ["a"]\nscor = 1', "t.toml: type AB: Object contains unknown field `scor`"),
        ('[[type]]\nname = "AB"\npattern = "ab"\nvalidator = "x"', "t.toml: type AB: validator: expected one of "),
        ('[[type]]\nname = "AB"\npattern = "ab"\nneeds_context = true', "t.toml: type AB: needs_context: expected "),
        ('[[type]]\nname = "AB"\ndeny = [""]', "t.toml: type AB: deny: word list: expected words of 1 to "),
        ('[[type]]\nname = "AB"\nallow = [" "]', "t.toml: type AB: context and allow: expected words that are not"),
    ],
)
def test_a_fault_names_the_file_the_type_and_the_key(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        parse_types(text, source="t.toml")


def test_every_validator_stands_in_the_table_of_checks() -> None:
    assert {"luhn", "iban", "entropy"} <= VALIDATORS.keys()
