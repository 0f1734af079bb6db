"""Train the English model on generated texts with known names.

One thread, fixed seeds, a fixed number of steps; ``--steps`` and ``--texts`` make it short for a trial.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import export
import numpy as np
import torch
from english_negatives import Negatives
from english_text import EnglishText, Prose, Span, library
from numpy import ndarray
from torch import Tensor, nn

from mibao.deid.names_features import GAPS, NEIGHBOURS, PIECES, SHAPES, WORDS, words_of

KINDS = ("PER", "LOC", "ORG", "ADDR", "TITLE")
TAGS = 1 + 2 * len(KINDS)
TABLES = [(WORDS, 32), (PIECES, 20), (PIECES, 20), (PIECES, 12), (SHAPES, 16), (PIECES, 20), (GAPS, 4)]
WIDTH, BATCH, RATE = 256, 4096, 2e-3
LIBRARY_TIMES, NEGATIVE_SHARE = 2, 0.15

Corpus = tuple[ndarray, ndarray, ndarray]  # features (words, 7), windows (words, 9), labels (words,)


class WindowTagger(nn.Module):
    """Tag scores of words from the features of their neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, columns) for rows, columns in TABLES)
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.1)
        self.columns = sum(columns for _, columns in TABLES)
        self.first = nn.Linear((2 * NEIGHBOURS + 1) * self.columns, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, TAGS)
        self.dropout = nn.Dropout(0.15)

    def forward(self, features: Tensor, near: Tensor) -> Tensor:
        """Scores of all words but the first and last four of ``features``; ``near`` tells which neighbours count."""
        words = torch.cat([table(features[:, index]) for index, table in enumerate(self.tables)], 1)
        words = self.dropout(words)
        count = len(near)
        shifted = [words[at : at + count] * near[:, at : at + 1] for at in range(2 * NEIGHBOURS + 1)]
        near = torch.cat(shifted, 1)
        state = torch.relu(self.first(near))
        state = state + torch.relu(self.second(self.dropout(state)))
        out: Tensor = self.head(state)
        return out

    def most(self, features: Tensor, near: Tensor) -> float:
        """How far the state before the second layer goes, but for one value in 10,000."""
        states: list[Tensor] = []
        hook = self.first.register_forward_hook(lambda _module, _inputs, out: states.append(torch.relu(out)))
        self(features, near)
        hook.remove()
        return _most(states[0])


def _most(state: Tensor) -> float:
    return float(np.quantile(state.detach().float().numpy(), 0.9999))


def labels_of(word_spans: ndarray, spans: list[Span]) -> ndarray:
    labels = np.zeros(len(word_spans), np.int64)
    for start, end, kind in spans:
        inside = np.flatnonzero((word_spans[:, 0] < end) & (word_spans[:, 1] > start))
        labels[inside] = 2 + 2 * KINDS.index(kind)
        labels[inside[:1]] = 1 + 2 * KINDS.index(kind)
    return labels


def corpus(*, seed: int, texts: int) -> Corpus:
    """Texts of one to several templates each, one after the other; no window reaches into another text."""
    source, rng = EnglishText(Random(seed)), Random(seed + 1)
    whole: list[tuple[str, list[Span]]] = [(text, []) for text in library()] * LIBRARY_TIMES
    prose = Prose(rng, source)
    negatives = Negatives(rng, prose.common, prose.made)
    whole += [(negatives.draw(), []) for _ in range(int(texts * NEGATIVE_SHARE))]
    text, marked = "", list[Span]()
    for _ in range(texts):
        more, spans = prose.draw() if rng.random() < 0.25 else source.draw()
        marked += [(start + len(text), end + len(text), kind) for start, end, kind in spans]
        text += more
        if rng.random() < 0.5 and len(text) < 300:
            text += rng.choice(("\n", "\n", " ", ". ", "\n\n"))
            continue
        whole.append((text, marked))
        text, marked = "", []
    rng.shuffle(whole)
    features, windows, labels, rows = [], [], [], 0
    for text, marked in whole:
        if words := words_of(text):
            features.append(words.features)
            windows.append(np.where(words.windows > 0, words.windows + rows, 0))
            labels.append(labels_of(words.spans, marked))
            rows += len(words.spans)
    return np.concatenate(features), np.concatenate(windows), np.concatenate(labels)


def train(model: WindowTagger, data: Corpus, steps: int, save: Callable[[], None]) -> None:
    features, windows, labels = data
    rng = np.random.default_rng(0)
    adam = torch.optim.Adam(model.parameters(), fused=True)
    started, total, starts = time.process_time(), 0.0, np.zeros(0, np.int64)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * (1 - step / steps) + 1e-5
        if not len(starts):
            starts = rng.permutation(np.arange(0, len(labels) - BATCH - 2 * NEIGHBOURS, BATCH))
        at, starts = int(starts[0]), starts[1:]
        near = features[at : at + BATCH + 2 * NEIGHBOURS].copy()
        near[rng.random(len(near)) < 0.25, 0] = 0  # a word that was never seen
        rare = rng.random(len(near)) < 0.04
        near[rare, :4] = 0
        near[rare, 5] = 0
        counts = windows[at + NEIGHBOURS : at + NEIGHBOURS + BATCH] > 0
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = model(torch.from_numpy(near), torch.from_numpy(counts.astype(np.float32)))
        loss = nn.functional.cross_entropy(
            scores.float(), torch.from_numpy(labels[at + NEIGHBOURS : at + NEIGHBOURS + BATCH])
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
        total += loss.item()
        if step % 200 == 199:
            print(f"step {step + 1} loss {total / 200:.4f} {time.process_time() - started:.0f} CPU-s", flush=True)
            total = 0.0
        if step % 500 == 499:  # a run that is cut off leaves a model behind
            save()


def forget_unseen(model: WindowTagger, features: ndarray) -> None:
    """Rows that no word of the training text chose say what the row for unknown words says."""
    with torch.no_grad():
        for index, table in enumerate(model.tables[:6]):
            assert isinstance(table, nn.Embedding)
            unseen = np.bincount(features[:, index], minlength=table.num_embeddings) < 2
            table.weight[torch.from_numpy(unseen)] = table.weight[0].clone()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--texts", type=int, default=400_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = corpus(seed=7, texts=arguments.texts)
    print(f"{len(data[2])} words, {time.process_time():.0f} CPU-s", flush=True)
    model = WindowTagger()

    def save() -> None:
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        some = torch.from_numpy(data[0][: BATCH + 2 * NEIGHBOURS])
        counts = torch.from_numpy((data[1][NEIGHBOURS : NEIGHBOURS + BATCH] > 0).astype(np.float32))
        with torch.no_grad():
            most = model.eval().most(some, counts)
        model.train()
        export.english(weights, most, arguments.out, {"name": "en-names-1"})

    train(model, data, arguments.steps, save)
    forget_unseen(model, data[0])
    save()
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes, {time.process_time():.0f} CPU-s in all")


if __name__ == "__main__":
    main()
