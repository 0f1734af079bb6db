"""How much of a match is right: each check takes what a pattern matched and says how many characters of it hold.

0 says none; less than all of them shortens the finding. What the table of kinds names under ``check`` stands here,
or in :mod:`mibao.deid.checksums`, whose functions see the match without its separators.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from mibao.deid import checksums
from mibao.deid.normalisation import CHINESE_DIGITS

Check: TypeAlias = "Callable[[re.Match[str]], int]"

_NO_SEPARATORS = str.maketrans("", "", " .-_*·•()/\t")
_SEPARATORS = re.compile(r"[ .·•_*/-]+")
_DATE_PARTS = re.compile(r"[/.-]")
_CODE = re.compile(r"[(\[{}<>$\\;]|\.[a-z]|::|->")
_LOG_LINE = re.compile(r"(?:^|\n)[\[(\"']?$")
_LOG_REST = re.compile(r"[])]? ?(?:[\[(]|[A-Z]{4,8}\b|[-|])")
_EXACT = re.compile(r"(?::[0-9]{2})?(?:[.,][0-9]{3}|Z\b|[+-][0-9]{2}:?[0-9]{2}\b)")
_LEAST_BEHIND_ZEROS, _LEAST_OF_EPP = 11, 9
_HAN = re.compile("[一-鿿]")
_NEVER_HANDLES = frozenset(
    ("none", "null", "true", "false", "str", "string", "int", "the", "and", "required", "optional", "password", "test")
)


def _whole(match: re.Match[str], holds: bool) -> int:
    return match.end(1) - match.start(1) if holds else 0


def _on_number(function: Callable[[str], bool]) -> Check:
    """The check of a checksum: Chinese digits counted as digits, separators gone, letters as capitals.

    Where the whole match does not hold, what stands before its last separators is tried: a number may be followed by
    another one.
    """

    def check(match: re.Match[str]) -> int:
        written = match[1]
        if not written.isascii():
            written = written.translate(CHINESE_DIGITS).replace("×", "X")
        for end in (len(written), *_before_separators(written)):
            try:
                if function(written[:end].translate(_NO_SEPARATORS).upper()):
                    return end
            except (ValueError, IndexError):  # too short for what is checked
                continue
        return 0

    return check


def _before_separators(written: str) -> list[int]:
    return [found.start() for found in _SEPARATORS.finditer(written)][-3:][::-1]


def _on_text(function: Callable[[str], bool]) -> Check:
    return lambda match: _whole(match, function(match[1]))


def email(match: re.Match[str]) -> int:
    """An address up to the last dot-separated part of letters; the local part without a dot at its ends."""
    written = match[1]
    local, _, domain = written.partition("@")
    if ".." in written or local.endswith(".") or ".-" in domain or "-." in domain:
        return 0
    labels = domain.split(".")
    while len(labels) > 1 and not (labels[-1].isalpha() and len(labels[-1]) >= 2):
        labels.pop()
    return len(local) + 1 + len(".".join(labels)) if len(labels) > 1 else 0


def iban(match: re.Match[str]) -> int:
    """An IBAN of its country's length, whatever words follow it."""
    written = match[1].upper()
    kept, length = 0, checksums.IBAN_LENGTHS.get(written[:2], 0)
    for index, symbol in enumerate(written, 1):
        kept += symbol not in " -"
        if kept == length and (index == len(written) or written[index] in " -"):
            return index if checksums.is_iban(written[:index].translate(_NO_SEPARATORS)) else 0
    return 0


def url(match: re.Match[str]) -> int:
    """An address with a host in it, without the full stop or bracket that ends the sentence."""
    written = match[1].rstrip(".,:;)]'~")
    return len(written) if len(written) > written.find("://") + 4 else 0


def cn_address(match: re.Match[str]) -> int:
    """A place name alone is no address: a district, street or number must follow it (the tail adds what does)."""
    return _whole(match, len(match[1]) >= 5)


def not_a_log_line(match: re.Match[str]) -> int:
    """A date, unless it is a machine's time stamp: to the millisecond, in a time zone, or at the head of a log line."""
    written = match[1]
    if ":" not in written:
        return _whole(match, not re.match(r"T[0-9]{2}:", match.string[match.end(1) : match.end(1) + 4]))
    if _EXACT.match(match.string, match.end(1)) is not None:
        return 0
    before = match.string[max(0, match.start(1) - 2) : match.start(1)]
    heads_a_line = _LOG_LINE.search(before) is not None and _LOG_REST.match(match.string, match.end(1)) is not None
    return _whole(match, not heads_a_line)


def _ipv4(written: str) -> bool:
    address, _, prefix = written.partition("/")
    octets = address.split(".")
    right = all(int(octet) <= 255 and (len(octet) == 1 or octet[0] != "0") for octet in octets)
    return right and int(prefix or 0) <= 32


def _ipv6(written: str) -> bool:
    if "::" in written and (written.count(":") < 3 or not any(symbol.isdigit() for symbol in written)):
        return False  # C++ and Ruby write names so
    try:
        ipaddress.IPv6Address(written)
    except ValueError:
        return False
    return len(written) >= 8


def _mac(written: str) -> bool:
    digits = re.sub("[:.-]", "", written).lower()
    return digits not in ("0" * 12, "f" * 12)


def _coordinates(written: str) -> bool:
    numbers = [float(number) for number in re.findall(r"[+-]?[0-9]+\.[0-9]+", written)]
    return len(numbers) == 2 and abs(numbers[0]) <= 180 and abs(numbers[1]) <= 180 and min(map(abs, numbers)) <= 90


def _day_and_month(written: str) -> bool:
    first, second = (int(part) for part in _DATE_PARTS.split(written)[:2])
    return 1 <= min(first, second) <= 12 and max(first, second) <= 31


def _phone(written: str) -> bool:
    return 6 <= sum(map(str.isdigit, re.split("(?i)[x转]|ext", written)[0])) <= 15


def _international(written: str) -> bool:
    """A phone number, and neither numbers with a sign and a point, +3.14159, nor zeros before some other number.

    The form with one point, +1.2125550123, is that of EPP, RFC 5733 section 2.5.
    """
    numbers = re.findall(r"(?<!\S)[+-][0-9]+\.([0-9]+)(?!\S)", written)
    zeros = written.startswith("00") and ("  " in written or sum(map(str.isdigit, written)) < _LEAST_BEHIND_ZEROS)
    return _phone(written) and not zeros and all(len(places) >= _LEAST_OF_EPP for places in numbers)


def _national_phone(written: str) -> bool:
    digits = written.translate(_NO_SEPARATORS)
    return 8 <= len(digits) <= 11 and not re.fullmatch(r"[0-9]{2}[.-][0-9]{2}[.-](?:[0-9]{2}|[0-9]{4})", written)


def _short_phone(written: str) -> bool:
    digits = written.translate(_NO_SEPARATORS)
    date = re.fullmatch(r"[0-9]{2}[.-][0-9]{2}[.-](?:[0-9]{2}|[0-9]{4})|(?:19|20)[0-9]{2}[ .-][0-9]{2}.*", written)
    decimal = re.fullmatch(r"[0-9]+[.][0-9]+", written)
    return 6 <= len(digits) <= 12 and not date and not decimal


def _cn_mobile(number: str) -> bool:
    number = number.lstrip("+")
    digits = number.removeprefix("00").removeprefix("86") if len(number) > 11 else number
    return len(digits) == 11 and digits[0] == "1" and digits[1] in "3456789"


def _bank_card(number: str) -> bool:
    known = number[:2] in ("62", "60", "95", "81") and number[:4] != "6011"  # which is Discover's
    return known and 16 <= len(number) <= 19 and checksums.is_luhn(number)


def _uscc(number: str) -> bool:
    """Nearly all have a letter; of those without one only companies' begin in a way that other numbers rarely do."""
    return checksums.is_uscc(number) and (not number.isdigit() or number[0] == "9")


def _resident_id(number: str) -> bool:
    return number[0] != "0" and checksums.is_resident_id(number)


def _eight_digit_date(written: str) -> bool:
    return checksums.is_date(written)


def _uk_licence(written: str) -> bool:
    return 1 <= int(written[7]) + 10 * (int(written[6]) % 5) <= 12 and 1 <= int(written[8:10]) <= 31


def _entropy(written: str) -> bool:
    """At least three bits a character, letters and digits mixed, and not the name of something."""
    if not (any(map(str.isdigit, written)) and any(map(str.isalpha, written))) or written.count("_") > 2:
        return False
    counts = Counter(written).values()
    bits = -sum(count / len(written) * math.log2(count / len(written)) for count in counts)
    return bits >= 3 and written.count("/") <= len(written) // 6


def _password_length(match: re.Match[str]) -> int:
    written = match[1].rstrip(".,;\"')")
    if len(written) < 4 or _CODE.search(written) or written.lower() in _NEVER_HANDLES:
        return 0
    explicit = re.search(r"[:=]|\b(?:is|was)|[是为]", match[0][: match.start(1) - match.start()]) is not None
    mixed = sum(any(map(test, written)) for test in (str.isdigit, str.isalpha, lambda symbol: not symbol.isalnum()))
    return len(written) if explicit and mixed >= 2 and any(map(str.isalpha, written)) else 0


def _wechat(written: str) -> bool:
    return not written.lower().startswith(("http", "wechat", "weixin"))


def _handle(written: str) -> bool:
    return written.lower() not in _NEVER_HANDLES


def _cn_plate(written: str) -> bool:
    tail = written.replace(" ", "")[2:].strip(".·•-")
    return sum(map(str.isdigit, tail)) >= 2 or any(symbol in "挂学警港澳使领" for symbol in tail)


CHECKS: Mapping[str, Check] = MappingProxyType(
    {name: _on_number(function) for name, function in checksums.CHECKS.items()}
    | {
        "email": email,
        "iban": iban,
        "url": url,
        "cn_address": cn_address,
        "not_a_log_line": not_a_log_line,
        "password": _password_length,
        "ipv4": _on_text(_ipv4),
        "ipv6": _on_text(_ipv6),
        "mac": _on_text(_mac),
        "coordinates": _on_text(_coordinates),
        "day_and_month": _on_text(_day_and_month),
        "phone": _on_text(_phone),
        "international": _on_text(_international),
        "national_phone": _on_text(_national_phone),
        "short_phone": _on_text(_short_phone),
        "cn_mobile": _on_number(_cn_mobile),
        "bank_card": _on_number(_bank_card),
        "uscc": _on_number(_uscc),
        "resident_id": _on_number(_resident_id),
        "eight_digit_date": _on_text(_eight_digit_date),
        "base58_address": _on_text(checksums.is_base58_address),
        "bech32": _on_text(checksums.is_bech32),
        "uk_licence": _on_text(_uk_licence),
        "entropy": _on_text(_entropy),
        "three_digits": _on_text(lambda written: sum(map(str.isdigit, written)) >= 3),
        "has_digit": _on_text(lambda written: any(map(str.isdigit, written))),
        "wechat": _on_text(_wechat),
        "handle": _on_text(_handle),
        "cn_plate": _on_text(_cn_plate),
        "cn_street": _on_text(lambda written: len(written) >= 5),
    }
)  # fmt: skip
