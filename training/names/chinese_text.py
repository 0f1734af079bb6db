"""Chinese text with its names marked: sentences from templates, and word sequences after jieba's tag statistics."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import chinese_entities as entities

Span = tuple[int, int, str]
Marked = tuple[str, list[Span]]

_TEMPLATES = Path(__file__).with_name("chinese_templates.txt")
_TOKEN = re.compile(r"@@|@[PLCKARESOBGMIJWQNVXDHF#$Y]|\[O?[^\]]*\]|[^@\[]+|.", re.S)


@functools.cache
def _words(*tags: str) -> tuple[list[str], list[float]]:
    rows = [(w, f) for tag in tags for w, f in entities.jieba_words().get(tag, ()) if f > 20 and len(w) > 1]
    return [w for w, _ in rows], [f**0.68 for _, f in rows]


class _Pool:
    """Draws from a weighted list many times at the price of one: a block is drawn at once."""

    def __init__(self, rng: Random, words: list[str], weights: list[float]) -> None:
        self._rng, self._words, self._weights, self._block = rng, words, weights, list[str]()

    def draw(self) -> str:
        if not self._block:
            self._block = self._rng.choices(self._words, self._weights, k=4096)
        return self._block.pop()


class ChineseText:
    """Endless marked text from one seeded generator."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self._noun = _Pool(rng, *_words("n", "vn", "l"))
        self._verb = _Pool(rng, *_words("v", "vn"))
        self._adjective = _Pool(rng, *_words("a", "i", "z", "b"))
        self._adverb = _Pool(rng, *_words("d"))
        self._templates = [
            line for line in _TEMPLATES.read_text(encoding="utf-8").splitlines() if line and not line.startswith("# ")
        ]
        slots: dict[str, tuple[Callable[[Random], str], str]] = {
            "P": (entities.person, "PER"), "Q": (entities.latin_person, "PER"), "L": (entities.place, "LOC"),
            "C": (entities.city, "LOC"), "K": (entities.country, "LOC"), "A": (entities.address, "LOC"),
            "R": (entities.road, "LOC"), "E": (entities.estate, "LOC"), "S": (entities.scenic, "LOC"),
            "O": (entities.organisation, "ORG"), "B": (entities.company, "ORG"), "G": (entities.government, "ORG"),
            "M": (entities.team, "ORG"), "I": (entities.institution, "ORG"), "J": (entities.title, "TITLE"),
        }  # fmt: skip
        self._slots = slots
        self._tags = _tag_chain()
        self._by_tag = {
            tag: _Pool(rng, [w for w, _ in rows], [f**0.72 for _, f in rows])
            for tag, rows in entities.jieba_words().items()
            if rows
        }

    def noun(self) -> str:
        draw = self.rng.random()
        if draw < 0.5:
            return self._noun.draw()
        if draw < 0.75:
            return self._noun.draw() + self._noun.draw()
        if draw < 0.9:
            return self._adjective.draw() + "的" + self._noun.draw()
        return self._noun.draw() + self.rng.choice("和与的、") + self._noun.draw()

    def verb(self) -> str:
        draw = self.rng.random()
        verb = self._verb.draw()
        if draw < 0.25:
            verb = self._adverb.draw() + verb
        elif draw < 0.4:
            verb = self.rng.choice(("已", "将", "正在", "不", "没有", "要", "会", "可以", "开始")) + verb
        draw = self.rng.random()
        if draw < 0.25:
            verb += self.rng.choice(("了", "着", "过", "到", "的", "一个"))
        elif draw < 0.45:
            verb += self.noun()
        return verb

    def adjective(self) -> str:
        return self.rng.choice(("", "很", "更加", "非常", "最", "不太")) + self._adjective.draw()

    def _plain(self, code: str) -> str:
        rng = self.rng
        if code in "NVX":
            return {"N": self.noun, "V": self.verb, "X": self.adjective}[code]()
        year = str(rng.randint(1950, 2026))
        if code == "Y":
            return rng.choice((f"{year}年", f"{year}年{rng.randint(1, 12)}月", year))
        if code == "D":
            return rng.choice(
                (
                    f"{rng.randint(1, 12)}月{rng.randint(1, 28)}日",
                    f"{rng.randint(1, 30)}日",
                    f"{year}年{rng.randint(1, 12)}月{rng.randint(1, 28)}日",
                    "上月",
                    "本周",
                    "去年底",
                    f"{year}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
                    "前天",
                    "当天",
                )
            )
        if code == "H":
            return rng.choice(
                (f"{rng.randint(1, 12)}时许", f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}", "凌晨", "下午")
            )
        if code == "#":
            return rng.choice(
                (
                    str(rng.randint(0, 9)),
                    str(rng.randint(0, 99)),
                    f"{rng.random() * 20:.1f}",
                    rng.choice("一二三四五六七八九十"),
                    str(rng.randint(100, 99999)),
                )
            )
        if code == "$":
            return f"{rng.randint(1, 9999)}" + rng.choice(("万元", "亿元", "元", "美元", "亿美元", "人", "%"))
        phone = f"1{rng.randint(30, 99)}{rng.randint(0, 99999999):08d}"
        return rng.choice((phone, f"{phone[:3]}-{phone[3:7]}-{phone[7:]}", f"0{rng.randint(10, 999)}-{phone[:8]}"))

    def from_template(self) -> Marked:
        text, spans = "", list[Span]()
        choose = re.compile(r"\(([^()]*)\)")
        template = self.rng.choice(self._templates)
        while found := choose.search(template):
            template = template[: found.start()] + self.rng.choice(found[1].split("|")) + template[found.end() :]
        for token in _TOKEN.findall(template):
            if token[0] == "[":
                kind, word = ("ORG", token[2:-1]) if token[1] == "O" else ("TITLE", token[1:-1])
            elif token == "@@":
                kind, word = "", "@"
            elif token[0] == "@" and len(token) == 2:
                code = token[1]
                if code == "W":
                    kind, word = "", entities.work(self.rng, self._noun._words)
                elif code in self._slots:
                    draw, kind = self._slots[code]
                    word = draw(self.rng)
                else:
                    kind, word = "", self._plain(code)
            else:
                kind, word = "", token
            if kind:
                spans.append((len(text), len(text) + len(word), kind))
            text += word
        return text, spans

    def from_tags(self) -> Marked:
        """Words after jieba's statistics of neighbouring tags, names at their places: no sense, but syntax."""
        rng, text, spans, tag = self.rng, "", list[Span](), "^"
        length = rng.randint(6, 30)
        for _ in range(length):
            follow, weights = self._tags[tag if tag in self._tags else "^"]
            tag = rng.choices(follow, weights)[0]
            kind, draw = "", rng.random()
            if (tag in ("nr", "nrt", "nrfg") and draw < 0.6) or (tag == "v" and draw < 0.015):
                kind, word = "PER", entities.person(rng)
            elif (tag == "ns" and draw < 0.7) or draw < 0.008:
                kind, word = "LOC", entities.place(rng)
            elif tag == "nt" or (tag == "nz" and draw < 0.4) or draw < 0.02:
                kind, word = "ORG", entities.organisation(rng)
            elif tag == "n" and draw > 0.985:
                kind, word = "TITLE", entities.title(rng)
            elif tag in ("nr", "nrt", "nrfg", "ns"):
                word = self._noun.draw()
            elif tag in self._by_tag:
                word = self._by_tag[tag].draw()
            else:
                word = rng.choice("，，，、。：“”（）") if tag in ("x", "w") else ""
            if kind:
                spans.append((len(text), len(text) + len(word), kind))
            text += word
        return text + rng.choice("。，\n"), spans


@functools.cache
def _tag_chain() -> dict[str, tuple[list[str], list[float]]]:
    """Which tag follows which, from the hidden Markov model that jieba ships (MIT)."""
    import math

    from jieba.posseg.prob_start import P as start
    from jieba.posseg.prob_trans import P as trans

    def follow(row: dict[tuple[str, str], float]) -> tuple[list[str], list[float]]:
        rows: dict[str, float] = {}
        for (state, tag), log in row.items():
            if state in "BS" and log > -1e50:
                rows[tag] = rows.get(tag, 0.0) + math.exp(log)
        return list(rows), list(rows.values())

    chain = {"^": follow(start)}
    tags = {tag for (_, tag) in trans}
    for tag in tags:
        merged: dict[tuple[str, str], float] = {}
        for state in "ES":
            for key, log in trans.get((state, tag), {}).items():
                merged[key] = max(merged.get(key, -1e100), log)
        options = follow(merged)
        if options[0]:
            chain[tag] = options
    return chain


def sentences(seed: int, count: int, *, tag_share: float = 0.4) -> Iterator[Marked]:
    source = ChineseText(Random(seed))
    for _ in range(count):
        yield source.from_tags() if source.rng.random() < tag_share else source.from_template()
