"""English text with its names marked, from templates."""

from __future__ import annotations

import importlib
import importlib.resources
import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import english_entities as entities
from english_entities import words

Span = tuple[int, int, str]
Marked = tuple[str, list[Span]]

_TEMPLATES = Path(__file__).with_name("english_templates.txt")
_TOKEN = re.compile(r"@\^w|@[A-Zwva#]|[^@]+|@", re.S)
_CHOICE = re.compile(r"(?<!\\)\(((?:\\[()]|[^()])*?)(?<!\\)\)")


class EnglishText:
    """Endless marked text from one seeded generator."""

    def __init__(self, rng: Random) -> None:
        from faker.providers.lorem.en_US import Provider

        self.rng = rng
        speech = Provider.parts_of_speech
        self._nouns, self._verbs, self._adjectives = speech["noun"], speech["verb"], speech["adjective"]
        self._templates = [
            line for line in _TEMPLATES.read_text(encoding="utf-8").splitlines() if line and not line.startswith("# ")
        ]
        self._slots: dict[str, tuple[Callable[[Random], str], str]] = {
            "P": (entities.person, "PER"), "F": (entities.first_name, "PER"), "S": (entities.surname, "PER"),
            "L": (entities.place, "LOC"), "C": (entities.city, "LOC"), "K": (entities.country, "LOC"),
            "A": (entities.address, "ADDR"), "R": (entities.street, "ADDR"), "Z": (entities.postcode, "ADDR"),
            "O": (entities.organisation, "ORG"), "J": (entities.job, "TITLE"),
        }  # fmt: skip

    def _verb(self) -> str:
        verb, draw = self.rng.choice(self._verbs), self.rng.random()
        if draw < 0.35:
            return verb
        if draw < 0.7:
            return verb + ("d" if verb.endswith("e") else "ed")
        return verb + "s" if draw < 0.9 else verb.rstrip("e") + "ing"

    def _noun(self) -> str:
        noun, draw = self.rng.choice(self._nouns), self.rng.random()
        if draw < 0.15:
            noun += "s"
        if draw > 0.85:
            noun = self.rng.choice(self._adjectives) + " " + noun
        return noun if draw < 0.95 else noun + " of the " + self.rng.choice(self._nouns)

    def _plain(self, code: str) -> str:
        rng = self.rng
        if code in "wva":
            return {"w": self._noun, "v": self._verb}[code]() if code != "a" else rng.choice(self._adjectives)
        if code == "T":
            return rng.choice(words.TITLES_OF_ADDRESS)
        if code == "E":
            name = re.sub("[^a-z]", "", entities.first_name(rng).lower()) or "info"
            host = rng.choice(words.STEMS) + rng.choice(words.ENDINGS)
            join, top = rng.choice(("", ".", "_")), rng.choice(("com", "org", "co.uk", "de", "net", "io"))
            return f"{name}{join}{rng.randint(1, 99)}@{host}.{top}"
        if code == "N":
            return rng.choice(
                (
                    f"+{rng.randint(1, 99)} {rng.randint(100, 999)} {rng.randint(1000000, 9999999)}",
                    f"({rng.randint(200, 999)}) {rng.randint(200, 999)}-{rng.randint(1000, 9999)}",
                    f"0{rng.randint(10, 99)} {rng.randint(1000, 9999)} {rng.randint(1000, 9999)}",
                )
            )
        if code == "D":
            month = rng.choice(words.MONTHS)
            day, year = rng.randint(1, 28), rng.randint(1940, 2026)
            return rng.choice(
                (
                    f"{rng.randint(1, 12)}/{day}/{year}",
                    f"{year}-{rng.randint(1, 12):02d}-{day:02d}",
                    f"{month} {day}",
                    f"{month} {day}, {year}",
                    f"{day} {month} {year}",
                    rng.choice(words.DAYS),
                    f"{year}-{rng.randint(1, 12):02d}-{day:02d} {rng.randint(0, 23):02d}:{rng.randint(10, 59)}:09",
                )
            )
        if code == "M":
            return rng.choice(("$", "€", "£", "USD ", "")) + rng.choice(
                (
                    f"{rng.randint(1, 9999)}",
                    f"{rng.randint(1, 99)},{rng.randint(100, 999)}.00",
                    f"{rng.randint(1, 99)}.{rng.randint(10, 99)}",
                )
            )
        if code == "#":
            return str(
                rng.choice((rng.randint(0, 9), rng.randint(0, 99), rng.randint(100, 99999), rng.randint(1900, 2026)))
            )
        if code == "U":
            return (
                rng.choice(("https://www.", "http://", "www."))
                + rng.choice(words.STEMS)
                + rng.choice(words.ENDINGS)
                + rng.choice((".com", ".org/help", ".net", ".io/x"))
            )
        return rng.choice(
            (
                f"{rng.randint(10**6, 10**9)}",
                f"{''.join(rng.choices('ABCDEFGHKLMNPRSTUVWXYZ', k=2))}{rng.randint(10**4, 10**7)}",
                "".join(str(rng.randint(0, 9)) for _ in range(16)),
                "-".join(str(rng.randint(1000, 9999)) for _ in range(4)),
            )
        )

    def _cased(self, name: str) -> str:
        """A name, as careless people write it now and then."""
        draw = self.rng.random()
        if draw < 0.02 and len(name.lower()) == len(name):
            return name.lower()
        return name.upper() if draw < 0.04 else name

    def name(self, code: str) -> tuple[str, str]:
        draw, kind = self._slots[code]
        return self._cased(draw(self.rng)), kind

    def draw(self) -> Marked:
        rng, text, spans = self.rng, "", list[Span]()
        template = rng.choice(self._templates)
        while found := _CHOICE.search(template):
            template = template[: found.start()] + rng.choice(found[1].split("|")) + template[found.end() :]
        template = template.replace("\\n", "\n").replace("\\(", "(").replace("\\)", ")")
        for token in _TOKEN.findall(template):
            if token == "@^w":
                text += self._noun().title()
                continue
            code = token[1:] if token[0] == "@" else ""
            if code in self._slots and code:
                word, kind = self.name(code)
                start = len(text) + (4 if word.startswith("the ") and kind in ("ORG", "LOC") else 0)
                spans.append((start, len(text) + len(word), kind))
            else:
                word = self._plain(code) if code else token
            text += word
        if text and rng.random() < 0.7:
            text = text[0].upper() + text[1:]
        draw = rng.random()
        if draw < 0.04 and len(text.lower()) == len(text):
            text = text.lower()
        elif draw < 0.06 and len(text.upper()) == len(text):
            text = text.upper()
        return text, spans


_LIBRARY = words.LIBRARY
_SIGNED = re.compile(r"copyright|author|written by|contributed|thanks|maintain|©|@|\bby [A-Z]", re.IGNORECASE)


def library() -> Iterator[str]:
    """Code and prose of Python itself (PSF licence), lines that name authors left out: nothing in it is a name."""
    from pydoc_data.topics import topics

    pages = list(topics.values())
    pages += [inspect.getsource(importlib.import_module(name)) for name in _LIBRARY]
    for page in pages:
        lines = [line for line in page.splitlines() if not _SIGNED.search(line)]
        for start in range(0, len(lines), 8):
            yield "\n".join(lines[start : start + 8])


_PROSE = re.compile(r"(?:[A-Z][a-z]+|[AI])(?: [A-Za-z'-]+,?){3,30}[.;:]")


def common_words() -> list[str]:
    """Frequent English words, from mimesis (MIT), less those that are somebody's or some place's name."""
    rows = importlib.resources.files("mimesis").joinpath("datasets", "en", "text.json").read_text(encoding="utf-8")
    names = entities.known_names()
    return [word for word in json.loads(rows)["words"] if word not in names]


class Prose:
    """Sentences of Python's own pages, one word in fifteen replaced by a name, or words of them at random."""

    def __init__(self, rng: Random, source: EnglishText) -> None:
        self._rng, self._source = rng, source
        self._sentences = [match[0] for page in library() for match in _PROSE.finditer(" ".join(page.split()))]
        self._words = [word.strip(",.;:") for sentence in self._sentences for word in sentence.split()[1:]]
        self._words += common_words() * 8

    def made(self) -> str:
        """A word that nobody uses."""
        rng = self._rng
        return rng.choice(words.STEMS) + rng.choice((rng.choice(words.ENDINGS), rng.choice(words.STEMS)))

    @property
    def common(self) -> list[str]:
        """Words of running text, frequent ones more than once."""
        return [word for word in self._words if word.isalpha()]

    def _odd(self) -> str:
        """What looks unlike any word and is no name: identifiers, file names, abbreviations, units."""
        rng, made = self._rng, self.made()
        word = rng.choice(self._words)
        version = f"{made}-{rng.randint(1, 9)}.{rng.randint(0, 9)}"
        letters = "".join(rng.choices("ABCDEFGHIKLMNOPRSTUVX", k=rng.randint(2, 4)))
        measure = f"{rng.randint(1, 999)} {rng.choice(('MB', 'kg', 'ms', 'km', 'GB', 'px'))}"
        return rng.choice(
            (
                made, made, made, f"{made}_{word}", f"{made}.{word}", f"`{made}`", f"{word}_{made}()", f"--{made}",
                made.upper(), f"{made}.py", f"/{made}/{word}", f"{word}{made.title()}", version, letters, measure,
            )
        )  # fmt: skip

    def draw(self) -> Marked:
        rng, text, spans = self._rng, "", list[Span]()
        if rng.random() < 0.5:
            words_ = rng.choice(self._sentences).split()
        else:
            words_ = [rng.choice(self._words) for _ in range(rng.randint(2, 14))]
            words_[0] = words_[0].capitalize()
            words_[-1] += rng.choice((".", "?", "!", ":", "", ""))
        draw = rng.random()
        if draw < 0.1:
            words_ = [word.capitalize() for word in words_]
        elif draw < 0.4:
            words_ = [word.capitalize() if rng.random() < 0.35 else word for word in words_]
        words_ = [self._odd() if rng.random() < 0.06 else word for word in words_]
        for plain in words_:
            word = plain
            if rng.random() < 0.065:
                name, kind = self._source.name(rng.choice("PPPFSLLCKOOOJ"))
                start = len(text) + (4 if name.startswith("the ") and kind in ("ORG", "LOC") else 0)
                spans.append((start, len(text) + len(name), kind))
                word = name + (word[-1] if word[-1:] in ",.;:" else "")
            text += word + " "
        return text.rstrip(" "), spans


def texts(seed: int, count: int) -> Iterator[Marked]:
    source = EnglishText(Random(seed))
    for _ in range(count):
        yield source.draw()
