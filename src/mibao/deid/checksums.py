"""Check digits and built-in dates of public numbers: each function takes ASCII letters and digits, separators gone.

Sources: GB 11643-1999, GB 32100-2015, GB 11714-1997, ISO 7064, ISO/IEC 7812-1 annex B (Luhn), ISO 13616 (IBAN), and
each issuer's own description. The tests hold every function against python-stdnum or the issuer's printed examples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from types import MappingProxyType

from mibao.errors import InputError

_CHECK_CHARACTERS = "10X98765432"
_BIRTH_YEARS = range(1900, 2100)
_USCC_SYMBOLS = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

# Region codes' first two digits: GB/T 2260, with 81-83 for residents of Hong Kong, Macao and Taiwan.
PROVINCES = frozenset((
    "11", "12", "13", "14", "15", "21", "22", "23", "31", "32", "33", "34", "35", "36", "37", "41", "42", "43", "44",
    "45", "46", "50", "51", "52", "53", "54", "61", "62", "63", "64", "65", "71", "81", "82", "83",
))  # fmt: skip
# Length of an IBAN by country: SWIFT's IBAN registry.
IBAN_LENGTHS: Mapping[str, int] = MappingProxyType(
    {
        country: length
        for length, countries in {
            15: "NO", 16: "BE", 18: "DK FI FO GL NL SD FK", 19: "MK SI", 20: "AT BA EE KZ LT LU XK MN",
            21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM TL SO",
            24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
            28: "AL AZ BY CY DO GT HN HU LB PL SV NI", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC",
            32: "LC", 33: "RU",
        }.items()
        for country in countries.split()
    }
)  # fmt: skip


def resident_id_check_character(first_17: str) -> str:
    """The last character of a Chinese resident identity number, ``0``-``9`` or ``X``.

    Raises:
        InputError: ``first_17`` is not 17 ASCII digits.

    Source: GB 11643-1999, section 4.2; ISO 7064 MOD 11-2, weight ``2**i`` for the i-th character from the right.
    """
    if len(first_17) != 17 or not (first_17.isascii() and first_17.isdigit()):
        raise InputError("resident identity number: expected 17 digits before the check character")
    total = sum(int(digit) << (17 - index) for index, digit in enumerate(first_17))
    return _CHECK_CHARACTERS[total % 11]


def is_resident_id(number: str) -> bool:
    """Whether 18 characters carry a real date of birth (1900-2099) and the right check character.

    The region code is not looked up: codes come and go, and old ones stay valid on the cards that carry them.
    """
    body, check = number[:17], number[17:].upper()
    if len(number) != 18 or not (body.isascii() and body.isdigit()):
        return False
    return is_date(body[6:14]) and check == resident_id_check_character(body)


def is_resident_id_15(number: str) -> bool:
    """Whether 15 digits carry a province and a date of birth from 1920 to 1999, as cards issued up to 1999 do.

    There is no check digit: GB 11643-1989.
    """
    born = number[6:12]
    return len(number) == 15 and number[:2] in PROVINCES and born >= "20" and is_date("19" + born)


def is_date(digits: str) -> bool:
    """Whether eight digits, year first, are a day between 1900 and 2099."""
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).year in _BIRTH_YEARS
    except ValueError:
        return False


def is_short_date(digits: str) -> bool:
    """Whether six digits, year first, are a day in either century."""
    return is_date("19" + digits) or is_date("20" + digits)


def is_luhn(number: str) -> bool:
    """Whether the last digit is the Luhn check digit of the others, not all of them zero."""
    if not number.isdigit():
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in number[-2::-2])
    return (sum(map(int, number[::-2])) + sum(doubled)) % 10 == 0 and number.strip("0") != ""


def is_uscc(number: str) -> bool:
    """Whether 18 characters are a unified social credit identifier (GB 32100-2015, annex A)."""
    if len(number) != 18 or any(symbol not in _USCC_SYMBOLS for symbol in number) or not number[2:8].isdigit():
        return False
    total = sum(_USCC_SYMBOLS.index(symbol) * pow(3, index, 31) for index, symbol in enumerate(number[:17]))
    return _USCC_SYMBOLS[-total % 31] == number[17]


def is_cn_organisation_code(number: str) -> bool:
    """Whether nine characters are an organisation code (GB 11714-1997)."""
    if len(number) != 9 or number[:8].strip("0") == "":
        return False
    total = _weighted([int(symbol, 36) for symbol in number[:8]], (3, 7, 9, 10, 5, 8, 4, 2))
    return "0123456789X0"[11 - total % 11] == number[8]


def is_iban(number: str) -> bool:
    """Whether the length is its country's and the remainder modulo 97 is 1 (ISO 13616)."""
    if IBAN_LENGTHS.get(number[:2]) != len(number):
        return False
    return int("".join(str(int(symbol, 36)) for symbol in number[4:] + number[:4])) % 97 == 1


def is_ssn(number: str) -> bool:
    """Whether nine digits could be a US social security number: no all-zero part, no area 666 or 9xx."""
    area, group, serial = number[:3], number[3:5], number[5:]
    return len(number) == 9 and area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def is_itin(number: str) -> bool:
    """Whether nine digits could be a US taxpayer identification number: 9xx and the groups that are given out."""
    group = int(number[3:5])
    return number[0] == "9" and (50 <= group <= 65 or 70 <= group <= 88 or 90 <= group <= 92 or 94 <= group <= 99)


def is_aba(number: str) -> bool:
    """Whether nine digits are a US bank routing number."""
    prefix = int(number[:2])
    known = prefix <= 12 or 21 <= prefix <= 32 or 61 <= prefix <= 72 or prefix == 80
    return known and number != "0" * 9 and _weighted_digits(number, (3, 7, 1) * 3) % 10 == 0


def is_npi(number: str) -> bool:
    """Whether ten digits are a US national provider identifier."""
    return number[0] in "12" and is_luhn("80840" + number)


def is_dea(number: str) -> bool:
    """Whether two letters and seven digits are a DEA registration."""
    digits = [int(digit) for digit in number[2:]]
    return (sum(digits[0:5:2]) + 2 * sum(digits[1:6:2])) % 10 == digits[6]


def is_vin(number: str) -> bool:
    """Whether 17 characters carry the check digit of ISO 3779 / 49 CFR 565 / GB 16735, letters and digits mixed."""
    values = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", (*range(1, 9), *range(1, 6), 7, 9, *range(2, 10)), strict=True))
    weights = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
    if number.isdigit() or number.isalpha():
        return False
    total = _weighted([values[symbol] if symbol in values else int(symbol) for symbol in number], weights)
    return "0123456789X"[total % 11] == number[8]


def is_nhs(number: str) -> bool:
    """Whether ten digits are an NHS number of England, Wales or the Isle of Man."""
    return _mod_11_check(number, range(10, 1, -1)) and len(set(number)) > 1


def is_nif(number: str) -> bool:
    """Whether eight digits, or X, Y, Z and seven, carry the letter of a Spanish NIF or NIE."""
    body = number[:-1]
    body = str("XYZ".find(body[0])) + body[1:] if body[0] in "XYZ" else body
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(body) % 23] == number[-1]


def is_fiscal_code(number: str) -> bool:
    """Whether 16 characters are an Italian fiscal code."""
    odd = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
    total = 0
    for index, symbol in enumerate(number[:15]):
        value = int(symbol) if symbol.isdigit() else _UPPER.index(symbol)
        total += odd[value] if index % 2 == 0 else value
    return _UPPER[total % 26] == number[15]


def is_nir(number: str) -> bool:
    """Whether 15 characters are a French social security number with its key."""
    body = number[:13].replace("2A", "19", 1) if number[5:7] == "2A" else number[:13]
    body = body.replace("2B", "18", 1) if number[5:7] == "2B" else body
    return body.isdigit() and 97 - int(body) % 97 == int(number[13:])


def is_de_tax_id(number: str) -> bool:
    """Whether 11 digits are a German tax identification number (ISO 7064 MOD 11,10; one digit two or three times)."""
    counts = [number[:10].count(digit) for digit in "0123456789"]
    product = 10
    for digit in number[:10]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    repeated = max(counts) in (2, 3) and sum(count > 1 for count in counts) == 1
    return number[0] != "0" and repeated and (11 - product) % 10 == int(number[10])


def is_pesel(number: str) -> bool:
    """Whether 11 digits are a Polish PESEL number."""
    month = int(number[2:4]) % 20
    total = _weighted_digits(number, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1))
    return 1 <= month <= 12 and 1 <= int(number[4:6]) <= 31 and total % 10 == 0


def is_bsn(number: str) -> bool:
    """Whether nine digits are a Dutch citizen service number."""
    return _weighted_digits(number, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0 and number.strip("0") != ""


def is_be_national_number(number: str) -> bool:
    """Whether 11 digits are a Belgian national number, of either century."""
    return int(number[9:]) in (97 - int(number[:9]) % 97, 97 - int("2" + number[:9]) % 97)


def is_pt_nif(number: str) -> bool:
    """Whether nine digits are a Portuguese tax number."""
    return (11 - _weighted_digits(number, range(9, 1, -1)) % 11) % 11 % 10 == int(number[8]) and number[0] != "0"


def is_personnummer(number: str) -> bool:
    """Whether ten digits are a Swedish personal or coordination number (day plus 60)."""
    day = int(number[4:6])
    born = f"{number[:4]}{day - 60 if day > 60 else day:02d}"
    return is_short_date(born) and is_luhn(number)


def is_hetu(number: str) -> bool:
    """Whether 11 characters are a Finnish personal identity code."""
    born = number[4:6] + number[2:4] + number[:2]
    checks = "0123456789ABCDEFHJKLMNPRSTUVWXY"
    return is_short_date(born) and checks[int(number[:6] + number[-4:-1]) % 31] == number[-1]


def is_cpr(number: str) -> bool:
    """Whether ten digits begin with a day, as a Danish CPR number does; its check digit is no longer kept to."""
    return is_short_date(number[4:6] + number[2:4] + number[:2])


def is_fodselsnummer(number: str) -> bool:
    """Whether 11 digits are a Norwegian birth number."""
    first = _weighted_digits(number, (3, 7, 6, 1, 8, 9, 4, 5, 2, 1, 0)) % 11 == 0
    return first and _weighted_digits(number, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def is_ahv(number: str) -> bool:
    """Whether 13 digits beginning with 756 are a Swiss AHV number (EAN-13 check digit)."""
    return number[:3] == "756" and _weighted_digits(number, (1, 3) * 6 + (1,)) % 10 == 0


def is_pps(number: str) -> bool:
    """Whether seven digits and one or two letters are an Irish PPS number."""
    second = _UPPER.index(number[8]) + 1 if len(number) > 8 and number[8] != "W" else 0
    total = _weighted_digits(number, range(8, 1, -1)) + 9 * second
    return "WABCDEFGHIJKLMNOPQRSTUV"[total % 23] == number[7]


def is_cpf(number: str) -> bool:
    """Whether 11 digits are a Brazilian CPF number."""
    first = _weighted_digits(number, range(10, 1, -1)) * 10 % 11 % 10
    second = _weighted_digits(number, range(11, 1, -1)) * 10 % 11 % 10
    return number[9:] == f"{first}{second}" and len(set(number)) > 1


def is_cnpj(number: str) -> bool:
    """Whether 14 digits are a Brazilian CNPJ number."""
    weights = (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
    first = _weighted_digits(number, weights[1:]) * 10 % 11 % 10
    second = _weighted_digits(number, weights) * 10 % 11 % 10
    return number[12:] == f"{first}{second}" and number.strip("0") != ""


def is_curp(number: str) -> bool:
    """Whether 18 characters are a Mexican CURP."""
    alphabet = "0123456789ABCDEFGHIJKLMNÑOPQRSTUVWXYZ"
    total = sum(alphabet.index(symbol) * (18 - index) for index, symbol in enumerate(number[:17]))
    return is_short_date(number[4:10]) and str(-total % 10) == number[17]


def is_rut(number: str) -> bool:
    """Whether digits and a check character are a Chilean RUT."""
    total = sum(int(digit) * (2 + index % 6) for index, digit in enumerate(reversed(number[:-1])))
    return "0123456789K0"[11 - total % 11] == number[-1]


def is_aadhaar(number: str) -> bool:
    """Whether 12 digits are an Indian Aadhaar number (Verhoeff)."""
    return number[0] not in "01" and number != number[::-1] and _verhoeff(number) == 0


def is_nric(number: str) -> bool:
    """Whether nine characters are a Singapore NRIC or FIN number."""
    total = _weighted_digits(number[1:8], (2, 7, 6, 5, 4, 3, 2)) + {"T": 4, "G": 4, "M": 3}.get(number[0], 0)
    checks = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "F": "XWUTRQPNMLK", "G": "XWUTRQPNMLK", "M": "KLJNPQRTUWX"}
    index = 10 - total % 11 if number[0] == "M" else total % 11
    return checks[number[0]][index] == number[8]


def is_tfn(number: str) -> bool:
    """Whether nine digits are an Australian tax file number."""
    return _weighted_digits(number, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0


def is_abn(number: str) -> bool:
    """Whether 11 digits are an Australian business number."""
    if number < "11":
        return False
    return _weighted_digits(f"{int(number[0]) - 1}{number[1:]}", (10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19)) % 89 == 0


def is_au_medicare(number: str) -> bool:
    """Whether ten digits are an Australian Medicare number."""
    return number[0] in "23456" and _weighted_digits(number, (1, 3, 7, 9, 1, 3, 7, 9)) % 10 == int(number[8])


def is_rrn(number: str) -> bool:
    """Whether 13 digits begin with a day and a century, as a Korean resident registration number does."""
    return is_short_date(number[:6]) and number[6] in "12345678"


def is_my_number(number: str) -> bool:
    """Whether 12 digits are a Japanese individual number."""
    weights = (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
    remainder = _weighted_digits(number, weights) % 11
    return int(number[11]) == (0 if remainder <= 1 else 11 - remainder)


def is_th_id(number: str) -> bool:
    """Whether 13 digits are a Thai identity number."""
    return number[0] not in "09" and (11 - _weighted_digits(number, range(13, 1, -1)) % 11) % 10 == int(number[12])


def is_hk_id(number: str) -> bool:
    """Whether one or two letters, six digits and a check character are a Hong Kong identity number."""
    padded = number.rjust(9)
    values = [36 if symbol == " " else int(symbol, 36) for symbol in padded[:8]]
    check = 10 if padded[8] == "A" else int(padded[8]) if padded[8].isdigit() else -1
    return check >= 0 and (_weighted(values, range(9, 1, -1)) + check) % 11 == 0


def is_tw_id(number: str) -> bool:
    """Whether a letter and nine digits are a Taiwanese identity number."""
    code = 10 + "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(number[0])
    return (code // 10 + _weighted_digits(f"{code % 10}{number[1:]}", (9, 8, 7, 6, 5, 4, 3, 2, 1, 1))) % 10 == 0


def is_za_id(number: str) -> bool:
    """Whether 13 digits are a South African identity number."""
    return is_short_date(number[:6]) and number[10] in "012" and is_luhn(number)


def is_tckn(number: str) -> bool:
    """Whether 11 digits are a Turkish identity number."""
    digits = [int(digit) for digit in number]
    tenth = (7 * sum(digits[0:9:2]) - sum(digits[1:8:2])) % 10
    return digits[0] != 0 and digits[9] == tenth and digits[10] == sum(digits[:10]) % 10


def is_base58_address(text: str) -> bool:
    """Whether ``text`` is a Bitcoin address in Base58Check, its four check bytes right."""
    number = 0
    for symbol in text:
        number = number * 58 + _BASE58.index(symbol)
    if number >= 1 << 200:
        return False
    data = number.to_bytes(25, "big")
    return hashlib.sha256(hashlib.sha256(data[:21]).digest()).digest()[:4] == data[21:]


def is_bech32(text: str) -> bool:
    """Whether ``text`` has the checksum of BIP 173 or BIP 350."""
    lowered = text.lower()
    prefix, _, data = lowered.rpartition("1")
    if text not in (lowered, text.upper()) or any(symbol not in _BECH32 for symbol in data):
        return False
    values = [*(ord(symbol) >> 5 for symbol in prefix), 0, *(ord(symbol) & 31 for symbol in prefix)]
    check = 1
    for value in [*values, *(_BECH32.index(symbol) for symbol in data)]:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    return check in (1, 0x2BC830A3)


def _weighted(values: Sequence[int], weights: Sequence[int]) -> int:
    return sum(value * weight for value, weight in zip(values, weights, strict=False))


def _weighted_digits(number: str, weights: Sequence[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(number, weights, strict=False))


def _mod_11_check(number: str, weights: Sequence[int]) -> bool:
    return (11 - _weighted_digits(number, weights) % 11) % 11 == (int(number[-1]) if number[-1].isdigit() else 10)


def _verhoeff(number: str) -> int:
    """The Verhoeff checksum, 0 where the last digit is right; the dihedral group of order 10 stands below as rules."""
    permutation = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    check = 0
    for index, digit in enumerate(reversed(number)):
        value = int(digit)
        for _ in range(index % 8):
            value = permutation[value]
        check = _dihedral(check, value)
    return check


def _dihedral(first: int, second: int) -> int:
    if first < 5:
        return (first + second) % 5 if second < 5 else (first + second - 5) % 5 + 5
    return (first - 5 - second) % 5 + 5 if second < 5 else (first - second) % 5


CHECKS: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {name[3:]: function for name, function in globals().items() if name.startswith("is_")}
)
