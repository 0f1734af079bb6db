"""The five hospitals of `mibao demo`: Wisconsin breast cancer, scaled by public constants."""

from mibao.demo.hospitals import load_hospitals
from mibao.federated import Records

_EVERYONE = load_hospitals()


def load_site(number: int) -> Records:
    """One hospital's records."""
    return _EVERYONE.sites[number]


def held_out() -> Records:
    """Records that no hospital has."""
    return _EVERYONE.test
