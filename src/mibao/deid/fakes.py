"""Values of the same form that stand for another: keyed, so that equal values have equal ones, and made up.

A fake may be somebody's true value by chance; none is derived from the value it replaces but through the key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mibao.crypto.kdf import derive
from mibao.deid.checksums import is_luhn, resident_id_check_character
from mibao.deid.normalisation import canonical_form, fold
from mibao.deid.pseudonyms import utf8
from mibao.types import AnyType, EntityType


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FAMILY = _words("""
    Adams Baker Carter Dawson Ellis Foster Gibson Harper Irwin Jensen Keller Lawson Mercer Norton Osborn Parker Quincy
    Ramsey Sutton Turner Upton Vaughn Warren Yates
""")
_FEMALE = _words("""
    Alice Beth Clara Diana Emma Fiona Grace Helen Irene Julia Karen Laura Maria Nora Olive Paula Rose Sarah
""")
_MALE = _words("""
    Adam Brian Carl David Eric Frank George Henry Ivan James Kevin Louis Mark Nolan Oscar Peter Ralph Simon
""")
_ZH_FAMILY = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩邓冯曹"
_ZH_GIVEN = "安宝晨诚达恩方刚海浩和恒华辉佳建健江杰静俊康乐丽良林玲明娜宁鹏平青清瑞山诗思涛伟文欣雪雅阳怡宇云志子"
_FEMALE_NAMES = frozenset(
    _words("""
    mary patricia jennifer linda elizabeth barbara susan jessica sarah karen nancy lisa margaret sandra ashley emily
    anna emma olivia sophia jane alice helen grace laura rachel ruth julia maria ann anne marie rose
""")
)
_FEMALE_SIGNS = frozenset("娜丽芳婷玲霞娟燕艳敏静洁雪梅兰英莉莹媛妍茜倩婉琳晶薇蕾瑶")


def fake(entity: AnyType, written: str, *, key: bytes) -> str:
    """A value of the form of ``written``; the same for all written forms of one value that differ in separators only.

    Args:
        key: 32 bytes, of the scope in which equal values are to have equal fakes.
    """
    value = canonical_form(entity, written)
    stream = derive(key, purpose="deid/fake", context=utf8(f"{entity.value}\0{value}"), length=256)
    return _FAKERS.get(entity, _same_form)(written, stream)


def _same_form(written: str, stream: bytes) -> str:
    """Digits for digits, letters for letters, Chinese characters for such; all else stays."""
    out = []
    place = 0
    for symbol in fold(written):
        byte = stream[place % len(stream)]
        place += symbol.isalnum()
        if symbol in "0123456789":
            out.append(str(byte % 10))
        elif "A" <= symbol <= "Z" or "a" <= symbol <= "z":
            out.append(chr((65 if symbol.isupper() else 97) + byte % 26))
        else:
            out.append(_ZH_GIVEN[byte % len(_ZH_GIVEN)] if symbol.isalnum() else symbol)
    return "".join(out)


def _digits_into(written: str, digits: str) -> str:
    """``written`` with its letters and digits replaced, in order, and its separators kept."""
    left = iter(digits)
    return "".join(next(left) if symbol.isalnum() else symbol for symbol in fold(written))


def _plain(written: str) -> str:
    return "".join(symbol for symbol in fold(written) if symbol.isalnum())


def _person(written: str, stream: bytes) -> str:
    if "一" <= written[0] <= "鿿":
        given = "".join(_ZH_GIVEN[stream[index] % len(_ZH_GIVEN)] for index in range(1, len(written)))
        if any(symbol in _FEMALE_SIGNS for symbol in written[1:]) and given:
            given = given[:-1] + sorted(_FEMALE_SIGNS)[stream[40] % len(_FEMALE_SIGNS)]
        return _ZH_FAMILY[stream[0] % len(_ZH_FAMILY)] + given
    words = written.split()
    female = words[0].lower() in _FEMALE_NAMES
    names = _FEMALE if female else _MALE
    family = _FAMILY[stream[0] % len(_FAMILY)]
    made = " ".join([*(names[byte % len(names)] for byte in stream[1 : len(words)]), family])
    return made.upper() if written.isupper() else made


def _email(written: str, stream: bytes) -> str:
    return _same_form(written.partition("@")[0], stream) + "@example.com"


def _phone(written: str, stream: bytes) -> str:
    digits = _plain(written)
    kept = len(digits) - min(8, max(4, len(digits) - 3))
    return _digits_into(written, digits[:kept] + "".join(str(byte % 10) for byte in stream[: len(digits) - kept]))


def _card(written: str, stream: bytes) -> str:
    digits = _plain(written)
    body = digits[:6] + "".join(str(byte % 10) for byte in stream[: max(0, len(digits) - 7)])
    check = next((str(last) for last in range(10) if is_luhn(f"{body}{last}")), "0")
    return _digits_into(written, (body + check)[: len(digits)])


def _resident_id(written: str, stream: bytes) -> str:
    """Region and sex stay, the day of birth moves within its decade; the check character is right."""
    number = _plain(written)
    if len(number) != 18 or not number[:17].isdigit():
        return _same_form(written, stream)
    born = f"{int(number[6:9])}{stream[0] % 10}{1 + stream[1] % 12:02d}{1 + stream[2] % 28:02d}"
    order = f"{stream[3] % 10}{stream[4] % 10}{(stream[5] % 5) * 2 + int(number[16]) % 2}"
    body = f"{number[:6]}{born}{order}"
    return _digits_into(written, body + resident_id_check_character(body))


_FAKERS: Mapping[AnyType, Callable[[str, bytes], str]] = MappingProxyType(
    {
        EntityType.PERSON: _person,
        EntityType.EMAIL_ADDRESS: _email,
        EntityType.PHONE_NUMBER: _phone,
        EntityType.CREDIT_CARD: _card,
        EntityType.BANK_CARD: _card,
        EntityType.CN_RESIDENT_ID: _resident_id,
    }
)
