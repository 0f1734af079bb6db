"""Our check digits and phone forms beside those of python-stdnum and phonenumbers."""

import importlib
import random
import re
import warnings

import phonenumbers
import pytest

from counts import counts
from mibao.deid import checksums, detect
from mibao.deid.detection import rules_engine
from mibao.types import EntityType

_SYMBOLS = {
    "9": "0123456789",
    "A": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "U": "0123456789ABCDEFGHJKLMNPQRTUWXY",
    "K": "0123456789K",
}
# check: (python-stdnum's module, a form of random candidates). 9: digit, A: letter, U: symbol of GB 32100, K: of a RUT.
_AGREE = {
    "luhn": ("luhn", "9999999999999999"), "nhs": ("gb.nhs", "9999999999"), "ssn": ("us.ssn", "999999999"),
    "nif": ("es.dni", "99999999A"), "bsn": ("nl.bsn", "999999999"), "pt_nif": ("pt.nif", "999999999"),
    "cpf": ("br.cpf", "99999999999"), "cnpj": ("br.cnpj", "99999999999999"), "rut": ("cl.rut", "99999999K"),
    "aadhaar": ("in_.aadhaar", "999999999999"), "tfn": ("au.tfn", "999999999"), "abn": ("au.abn", "99999999999"),
    "my_number": ("jp.in_", "999999999999"), "th_id": ("th.pin", "9999999999999"),
    "tckn": ("tr.tckimlik", "99999999999"), "de_tax_id": ("de.idnr", "99999999999"), "ahv": ("ch.ssn", "7569999999999"),
    "pps": ("ie.pps", "9999999A"), "uscc": ("cn.uscc", "91999999UUUUUUUUUU"),
}  # fmt: skip
# These also look at a date, or at what has been given out: whatever they accept, so do we.
_CONTAIN = {
    "itin": ("us.itin", "999999999"), "pesel": ("pl.pesel", "99999999999"),
    "personnummer": ("se.personnummer", "999999-9999"), "fodselsnummer": ("no.fodselsnummer", "99999999999"),
    "za_id": ("za.idnr", "9999999999999"), "be_national_number": ("be.nn", "99999999999"),
}  # fmt: skip


def _verdicts(name: str, module: str, form: str) -> list[tuple[bool, bool]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = importlib.import_module(f"stdnum.{module}")
    source = random.Random(name)  # noqa: S311
    verdicts = []
    for _ in range(counts(short=1_500, long=60_000)):
        number = "".join(source.choice(_SYMBOLS.get(symbol, symbol)) for symbol in form)
        verdicts.append((checksums.CHECKS[name](number.replace("-", "")), bool(oracle.is_valid(number))))
    return verdicts


@pytest.mark.parametrize("name", _AGREE)
def test_a_check_agrees_with_python_stdnum(name: str) -> None:
    verdicts = _verdicts(name, *_AGREE[name])
    assert all(ours == theirs for ours, theirs in verdicts)
    assert any(ours for ours, _ in verdicts)


@pytest.mark.parametrize("name", _CONTAIN)
def test_a_check_accepts_whatever_python_stdnum_does(name: str) -> None:
    assert all(ours for ours, theirs in _verdicts(name, *_CONTAIN[name]) if theirs)


def test_a_routing_number_is_one_for_python_stdnum_too_which_looks_at_no_prefix() -> None:
    verdicts = _verdicts("aba", "us.rtn", "999999999")
    assert all(theirs for ours, theirs in verdicts if ours)
    assert any(ours for ours, _ in verdicts)


@pytest.mark.parametrize("country", ["GB", "DE", "FR", "NO", "MT", "NL"])
def test_the_examples_of_the_iban_registry_hold_and_one_wrong_digit_does_not(country: str) -> None:
    examples = {
        "GB": "GB29NWBK60161331926819", "DE": "DE89370400440532013000", "FR": "FR1420041010050500013M02606",
        "NO": "NO9386011117947", "MT": "MT84MALT011000012345MTLCAST001S", "NL": "NL91ABNA0417164300",
    }  # fmt: skip
    number = examples[country]
    assert checksums.is_iban(number)
    assert not checksums.is_iban(number[:-1] + ("1" if number[-1] != "1" else "2"))


@pytest.mark.parametrize("country", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_every_countrys_example_numbers_are_found_whole_in_international_form(country: str) -> None:
    for kind in (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE):
        number = phonenumbers.example_number_for_type(country, kind)
        if number is None:
            continue
        for form in (phonenumbers.PhoneNumberFormat.E164, phonenumbers.PhoneNumberFormat.INTERNATIONAL):
            written = phonenumbers.format_number(number, form)
            if len(re.sub("[^0-9]", "", written)) < 8:
                continue
            (found,) = detect(f"请拨打{written}，谢谢", engine=rules_engine())
            assert (found.type, found.start, found.end) == (EntityType.PHONE_NUMBER, 3, 3 + len(written)), written
