"""Texts with known personal data, made from the standards, and texts without any: nothing here is read from the rules.

Check digits are computed anew from GB 11643, GB 32100 and ISO/IEC 7812; names and addresses come from Faker's zh_CN
and carry no evidence that names are found, so only structured types are scored.
"""

from __future__ import annotations

import json
import random
import re
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Span: TypeAlias = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Example:
    """A text and the spans of personal data in it."""

    text: str
    spans: tuple[Span, ...]


def _digits(source: random.Random, count: int) -> str:
    return "".join(source.choices("0123456789", k=count))


def _identity(source: random.Random) -> str:
    region = source.choice((
        "110105", "310115", "330106", "440305", "510104", "420111", "610113", "320102", "350203", "210211",
    ))  # fmt: skip
    born = f"{source.randint(1945, 2012)}{source.randint(1, 12):02d}{source.randint(1, 28):02d}"
    body = f"{region}{born}{source.randint(1, 999):03d}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return body + "10X98765432"[sum(int(d) * w for d, w in zip(body, weights, strict=True)) % 11]


def _luhn(body: str) -> str:
    total = 0
    for index, digit in enumerate(reversed(body)):
        value = int(digit) * (2 - index % 2)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def _bank_card(source: random.Random) -> str:
    prefix = source.choice(("622202", "621226", "621700", "622848", "621661", "622588", "621483", "622908"))
    body = prefix + _digits(source, source.choice((9, 12)))
    return body + _luhn(body)


def _mobile(source: random.Random) -> str:
    heads = ("130", "135", "138", "139", "150", "158", "166", "177", "186", "188", "198", "199")
    return source.choice(heads) + _digits(source, 8)


def _landline(source: random.Random) -> str:
    return f"{source.choice(('010', '021', '0571', '0755', '028'))}-{source.randint(2, 8)}{_digits(source, 7)}"


def _credit_identifier(source: random.Random) -> str:
    symbols = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    body = source.choice(("91", "92", "12", "51")) + source.choice(("110108", "310115", "330106", "440305"))
    body += "".join(source.choices(symbols, k=9))
    weights = (1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28)
    total = sum(symbols.index(symbol) * weight for symbol, weight in zip(body, weights, strict=True))
    return body + symbols[(31 - total % 31) % 31]


def _plate(source: random.Random) -> str:
    head = source.choice("京沪津渝粤浙苏鲁川鄂湘闽皖豫冀") + source.choice("ABCDEFG")
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    if source.random() < 0.3:
        return head + source.choice("DF") + source.choice(letters + "0123456789") + _digits(source, 4)
    tail = list(_digits(source, 5))
    if source.random() < 0.5:
        tail[source.randrange(3)] = source.choice(letters)
    return head + "".join(tail)


def _passport(source: random.Random) -> str:
    if source.random() < 0.7:
        return source.choice(("E", "G")) + _digits(source, 8)
    return "E" + source.choice("ABCDEFGHJK") + _digits(source, 7)


def _email(source: random.Random) -> str:
    name = "".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(4, 9)))
    host = source.choice(("qq.com", "163.com", "sina.com.cn", "example.org"))
    return f"{name}{source.choice(('', '.li', '_88', '2024'))}@{host}"


def _address(source: random.Random) -> str:
    return ".".join(str(source.randint(1, 254)) for _ in range(4))


_MAKERS: Mapping[str, Callable[[random.Random], str]] = {
    "CN_RESIDENT_ID": _identity, "PHONE_NUMBER": _mobile, "LANDLINE": _landline, "BANK_CARD": _bank_card,
    "CN_USCC": _credit_identifier, "CN_PLATE": _plate, "CN_PASSPORT": _passport, "EMAIL_ADDRESS": _email,
    "IP_ADDRESS": _address,
}  # fmt: skip
_TEMPLATES = (
    "客户{NAME}，身份证号{CN_RESIDENT_ID}，手机{PHONE_NUMBER}。",
    "本人身份证号码为{CN_RESIDENT_ID}，请核实后回电{PHONE_NUMBER}。",
    "收款卡号：{BANK_CARD}，户名{NAME}。",
    "请把款项打到银行卡{BANK_CARD}，谢谢！",
    "供应商统一社会信用代码{CN_USCC}，联系电话{LANDLINE}。",
    "甲方（统一社会信用代码：{CN_USCC}）与乙方签订本合同。",
    "车牌{CN_PLATE}于昨日违章，车主电话{PHONE_NUMBER}",
    "停车场记录：{CN_PLATE}，入场08:15，出场17:40",
    "护照号{CN_PASSPORT}，有效期十年。",
    "旅客{NAME}持护照{CN_PASSPORT}入境",
    "发邮件到{EMAIL_ADDRESS}或致电{PHONE_NUMBER}",
    "登录IP{IP_ADDRESS}，账号绑定{PHONE_NUMBER}，邮箱{EMAIL_ADDRESS}",
    "座机{LANDLINE}转人事，手机{PHONE_NUMBER}也可以",
    "{PHONE_NUMBER}是我的新号码，旧号{PHONE_NUMBER}停用",
    "患者{NAME}({CN_RESIDENT_ID})今日复诊，家属电话{PHONE_NUMBER}，医保卡另附",
    "证件：{CN_RESIDENT_ID}/{CN_PASSPORT}",
    "张三说他住在三楼，让我打{PHONE_NUMBER}找他。",
    "开票信息 税号:{CN_USCC} 开户行账号:{BANK_CARD} 电话:{LANDLINE}",
)
_PLAIN_SENTENCES = (
    "今天的会议改到下午三点，请大家准时参加。", "这批货一共128件，合计人民币35600.50元。",
    "第3季度销售额同比增长12.5%，环比下降3.2%。", "地铁2号线早上7点半最挤，建议错峰出行。",
    "新版本2.14.3修复了若干问题。",
)  # fmt: skip


def _decoy(source: random.Random) -> str:
    identity = _identity(source)
    wrong = identity[:17] + source.choice([c for c in "0123456789" if c != identity[17]])
    card = _bank_card(source)
    return source.choice((
        f"订单号{_digits(source, 20)}已发货。",
        f"商品条码{wrong}，库存{source.randint(1, 500)}件。",
        f"流水{card[:-1]}{(int(card[-1]) + source.randint(1, 9)) % 10}处理完毕。",
        f"合同编号HT-2024-{_digits(source, 6)}，金额{source.randint(1000, 99999)}.00元。",
        f"序列{source.choice(('10', '11', '12'))}{_digits(source, 9)}共{_digits(source, 3)}条。",
        f"快递单号SF{_digits(source, 13)}，重量{source.randint(1, 20)}.{_digits(source, 1)}kg。",
        f"版本{source.randint(1, 9)}.{source.randint(0, 20)}.{source.randint(0, 9)}发布。",
        f"坐标系原点偏移{_digits(source, 4)}.{_digits(source, 3)}米。",
    ))  # fmt: skip


def _grouped(value: str, sizes: Sequence[int], separator: str) -> str:
    pieces, place = [], 0
    for size in (*sizes, len(value)):
        if place < len(value):
            pieces.append(value[place : place + size])
            place += size
    return separator.join(pieces)


_GROUPS: Mapping[str, tuple[int, ...]] = {"CN_RESIDENT_ID": (6, 8), "PHONE_NUMBER": (3, 4), "BANK_CARD": (4, 4, 4, 4)}


def _disguised(kind: str, value: str, source: random.Random) -> str:
    """The value as people also write it: grouped, full-width, with the country's code."""
    dice = source.random()
    if kind in _GROUPS and dice < 0.45:
        value = _grouped(value, _GROUPS[kind], source.choice((" ", "-")))
    if kind == "PHONE_NUMBER" and source.random() < 0.35:
        value = source.choice(("+86 ", "+86", "86-", "+86-", "(+86)", "0086")) + value
    if kind == "CN_PLATE" and dice < 0.4:
        value = value[:2] + source.choice(("·", " ", "-")) + value[2:]
    if kind in ("CN_RESIDENT_ID", "CN_USCC") and source.random() < 0.2:
        value = value.lower()
    if source.random() < 0.25:
        value = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "　" if c == " " else c for c in value)
    return value


def chinese(count: int, *, hard: bool, seed: int = 20260312) -> list[Example]:
    """So many Chinese texts with structured personal data; ``hard``: disguised, among numbers that are none."""
    from faker import Faker

    names = Faker("zh_CN")
    names.seed_instance(seed)
    source = random.Random(seed + hard)  # noqa: S311
    examples = []
    for _ in range(count):
        sentences = [source.choice(_TEMPLATES)]
        sentences += source.choices(_PLAIN_SENTENCES, k=source.randint(0, 2))
        if hard:
            sentences.append("\0")
        source.shuffle(sentences)
        text, spans = "", []
        for sentence in sentences:
            if sentence == "\0":
                text += _decoy(source)
                continue
            for index, piece in enumerate(_split(sentence)):
                if index % 2 == 0:
                    text += piece
                elif piece == "NAME":
                    text += names.name()
                else:
                    kind = "PHONE_NUMBER" if piece == "LANDLINE" else piece
                    value = _MAKERS[piece](source)
                    value = _disguised(piece, value, source) if hard else value
                    spans.append((kind, len(text), len(text) + len(value)))
                    text += value
        examples.append(Example(text, tuple(spans)))
    return examples


def _split(template: str) -> list[str]:
    pieces = []
    for part in template.split("{"):
        pieces += part.split("}")
    return pieces


def _words(text: str) -> list[str]:
    return text.split()


_WORDS = _words("""
    the of and to in is that it was for on are with as be this at from or have an they which one you were all her she
    there would their we him been has when who will no more if out so up said what its about than into them can only
    other time new some could these two may first then do any like my now over such our man me even most made after
    also did many off before must well back through years where much your way down should because long each just state
""")
_NOUNS = _words("""
    value index buffer handler request batch worker result config cursor window matrix tensor weight layer shard
""")


def _prose(source: random.Random) -> str:
    words = source.choices(_WORDS, k=source.randint(8, 22))
    return " ".join(words).capitalize() + source.choice((". ", "! ", "? ", ".\n"))


def _chinese_prose(source: random.Random) -> str:
    characters = (
        "天地人你我他是不了在有个上中大为和国到以说时要就出会可也对生能而子那"
        "得于着下自之年过发后作里用道行所然家种事成方多经么去"
    )
    head = "".join(source.choices(characters, k=source.randint(8, 20)))
    return head + source.choice("，。！？") + source.choice(_PLAIN_SENTENCES)


def _code(source: random.Random) -> str:
    one, two, three = source.choices(_NOUNS, k=3)
    return source.choice((
        f"    {one}_{two} = {one}.{two}({source.randint(0, 4096)}, 0x{source.getrandbits(32):08x})\n",
        f"def {one}_{two}({three}: int = {source.randint(1, 99)}) -> None:\n    return {two}[{three} + 1:]\n",
        f"for (int i = 0; i < {source.randint(10, 10_000)}; ++i) {{ std::vector<{one}> {two}; }}\n",
        f"#define {one.upper()}_{two.upper()} {source.randint(1, 10**9)}u\n",
        f'assert {one}["{two}"] == {source.random():.12f}  # see {three}/{two}.py:{source.randint(1, 900)}\n',
        f"git checkout {source.getrandbits(160):040x}\n",
        f"import {one}.{two} as {three}; password = get_{one}(); token: str = {two}.{three}\n",
        f"@{one}\nclass {two.title()}({three.title()}):\n    pass\n",
    ))  # fmt: skip


def _log(source: random.Random) -> str:
    level = source.choice(("INFO", "DEBUG", "WARN", "ERROR"))
    day = f"2026-{source.randint(1, 12):02d}-{source.randint(1, 28):02d}"
    hour = f"{source.randint(0, 23):02d}:{source.randint(0, 59):02d}:{source.randint(0, 59):02d}"
    stamp = f"{day} {hour},{source.randint(0, 999):03d} {level}"
    code = source.choice((200, 404, 500))
    build = f"{source.randint(1, 9)}.{source.randint(0, 30)}.{source.randint(0, 200)}"
    return source.choice((
        f"{stamp} {source.choice(_NOUNS)}-{source.randint(1, 64)} took {source.random() * 900:.3f} ms\n",
        f"{stamp} request id={source.getrandbits(64):016x} status={code} bytes={source.randint(10, 10**7)}\n",
        f"[{source.random() * 10**5:12.6f}] kernel: {source.choice(_NOUNS)} at 0x{source.getrandbits(64):016x}\n",
        f"{day}T{hour}.{source.randint(0, 999):03d}Z {level} pool-{source.randint(1, 9)} job done\n",
        f"{source.choice(('Jan', 'May', 'Oct'))} {day[-2:]} {hour} node-{code} systemd[1]: Reloading.\n",
        f"build {build}+{source.getrandbits(28):07x} epoch {source.randint(1_600_000_000, 1_790_000_000)}\n",
    ))  # fmt: skip


def _numbers(source: random.Random) -> str:
    return source.choice((
        " ".join(f"{source.gauss(0, 50):.{source.randint(1, 6)}f}" for _ in range(8)) + "\n",
        " ".join(f"{source.gauss(0, 50):+.{source.randint(1, 7)}f}" for _ in range(8)) + "\n",
        f"{source.getrandbits(32):08x}: " + " ".join(f"{source.getrandbits(16):04x}" for _ in range(8)) + "\n",
        f"{source.gauss(20, 9):.1f} °C, {source.gauss(50, 9):.2f} kPa, n = {source.randint(3, 90)}\n",
        ",".join(str(source.randint(0, 10 ** source.randint(1, 9))) for _ in range(8)) + "\n",
        f"{source.randint(1, 999)}x768 px, ISBN 978-7-{_digits(source, 3)}-{_digits(source, 5)}-1\n",
        f"row {source.randint(1, 10**6)}: {source.randint(1, 10**12)} {source.random():.8e}\n",
    ))  # fmt: skip


def harmless(characters: int, *, seed: int = 7) -> str:
    """So many characters of code, logs, numbers and prose of both languages that hold no personal data."""
    source = random.Random(seed)  # noqa: S311
    pieces: list[str] = []
    length = 0
    while length < characters:
        pieces.append(source.choice((_prose, _prose, _chinese_prose, _code, _log, _numbers))(source))
        length += len(pieces[-1])
    return "".join(pieces)


_SOMEBODYS = re.compile(
    r"@|https?:|www\.|[12][0-9]{3}-[0-9]{2}|(?i:copyright|author|thanks to|contact)|\b(?:[Bb]y|[Ff]rom)\b|, Inc|"
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* [0-9]|[0-9][ -](?:Jan|Dec)|127\.0"
)


def library_code(characters: int, *, seed: int = 3) -> str:
    """So many characters of Python's own library (PSF licence), without the lines that have an address, a date or a
    credit in them: of what is found in the rest a few are names all the same."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"site-packages", "test", "tests", "idlelib"}
    paths = [path for path in sorted(folder.rglob("*.py")) if not left_out & set(path.relative_to(folder).parts)]
    random.Random(seed).shuffle(paths)  # noqa: S311
    pieces, length = list[str](), 0
    for path in paths:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        pieces += [line for line in lines if not _SOMEBODYS.search(line)]
        length = sum(map(len, pieces))
        if length > characters:
            break
    return "".join(pieces)[:characters]


# What the English files call things, and our names for it. The rest (addresses in parts, titles) is scored too.
ENGLISH_TYPES: Mapping[str, str] = {
    "PERSON": "PERSON", "LOCATION": "LOCATION", "ADDRESS": "ADDRESS", "STREET_ADDRESS": "ADDRESS", "GPE": "LOCATION",
    "ORGANIZATION": "ORGANIZATION", "ORG": "ORGANIZATION", "CREDIT_CARD": "CREDIT_CARD", "PHONE_NUMBER": "PHONE_NUMBER",
    "PHONE": "PHONE_NUMBER", "DATE_TIME": "DATE_TIME", "DATE": "DATE_TIME", "EMAIL_ADDRESS": "EMAIL_ADDRESS",
    "EMAIL": "EMAIL_ADDRESS", "US_SSN": "US_SSN", "SSN": "US_SSN", "IBAN_CODE": "IBAN_CODE", "DOMAIN_NAME": "URL",
    "URL": "URL", "IP_ADDRESS": "IP_ADDRESS", "US_DRIVER_LICENSE": "US_DRIVER_LICENSE", "TITLE": "TITLE",
}  # fmt: skip


def english(folder: Path) -> dict[str, list[Example]]:
    """The English sets of MIBAO_DATA: presidio-research's generated_large, and datafog's edge cases."""
    large = json.loads((folder / "generated_large.json").read_text(encoding="utf-8"))
    sets = {"generated_large": [
        Example(row["full_text"], tuple(
            (ENGLISH_TYPES[span["entity_type"]], span["start_position"], span["end_position"])
            for span in row["spans"] if span["entity_type"] in ENGLISH_TYPES
        ))
        for row in large
    ]}  # fmt: skip
    cases = []
    for path in sorted((folder / "edge_cases/tests/corpus").glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            spans = tuple(
                (ENGLISH_TYPES[each["type"]], each["start"], each["end"])
                for each in row["expected_entities"]
                if each["type"] in ENGLISH_TYPES
            )
            cases.append(Example(row["input"], spans))
    return {**sets, "edge_cases": cases}


_CLUENER_KINDS = {
    "name": "PERSON", "address": "LOCATION", "scene": "LOCATION", "organization": "ORGANIZATION",
    "company": "ORGANIZATION", "government": "ORGANIZATION",
}  # fmt: skip
_COLUMN_KINDS = {"NAME": "PERSON", "PER": "PERSON", "LOC": "LOCATION", "ORG": "ORGANIZATION"}


def chinese_names(folder: Path) -> dict[str, list[Example]]:
    """The Chinese sets of MIBAO_DATA, people, places and organisations: CLUENER, Resume, People's Daily."""
    cluener = []
    for line in (folder / "cluener_dev.txt").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        cluener.append(Example(row["text"], tuple(
            (_CLUENER_KINDS[each["entity_type"]], each["entity_index"]["begin"], each["entity_index"]["end"])
            for each in row["entity_list"] if each["entity_type"] in _CLUENER_KINDS
        )))  # fmt: skip
    resume = _columns(folder / "resume_dev.char.bmes")
    return {"cluener": cluener, "resume": resume, "peoples_daily": _columns(folder / "peoples_daily.dev")}


def _columns(path: Path) -> list[Example]:
    """A file of one character and its tag (B, I or M, E, S) a line, sentences apart by an empty line."""
    examples: list[Example] = []
    text, spans = "", list[Span]()
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        if not line.strip():
            if text:
                examples.append(Example(text, tuple(spans)))
            text, spans = "", []
            continue
        char, tag = line.rsplit(" ", 1)
        part, _, kind = tag.partition("-")
        if kind in _COLUMN_KINDS:
            if part in "BS":
                spans.append((_COLUMN_KINDS[kind], len(text), len(text) + 1))
            elif spans:
                spans[-1] = (spans[-1][0], spans[-1][1], len(text) + 1)
        text += char
    return examples
