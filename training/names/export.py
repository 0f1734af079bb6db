"""From trained weights to an ONNX file: whole numbers of eight bits wherever two vectors meet.

Scales are fixed here, so a sum is a whole number and the same whatever stands beside it in a batch. Weights take seven
bits: sums of two products then fit the sixteen bits in which older processors add them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper

_OPSET = 17
_NOTHING = 128  # of eight bits without a sign, where a table's row is all zeros
_MOST = 63


class Graph:
    """Nodes and constants of a graph in the making."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._known: dict[tuple[object, ...], str] = {}

    def constant(self, value: ndarray) -> str:
        key = (value.shape, str(value.dtype), value.tobytes())
        if key in self._known:
            return self._known[key]
        name = self._known[key] = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def table(self, weights: ndarray, rows: str) -> tuple[str, ndarray]:
        """Rows of a table in eight bits, 128 for nothing, and the scale of each column."""
        scale = np.maximum(np.abs(weights).max(axis=0), 1e-9).astype(np.float32) / 127
        small = np.clip(np.rint(weights / scale), -127, 127) + _NOTHING
        return self.node("Gather", self.constant(small.astype(np.uint8)), rows, axis=0), scale

    def linear(self, state: str, scale: ndarray, nothing: int, weights: ndarray, bias: ndarray) -> str:
        """``weights`` over a state of eight bits: its columns' scales, and which value stands for nothing."""
        folded = weights.T * scale[:, None]
        least = np.maximum(np.abs(folded).max(axis=0), 1e-9) / _MOST
        small = self.constant(np.rint(folded / least).astype(np.int8))
        sums = self.node("MatMulInteger", state, small, self.constant(np.array(nothing, np.uint8)))
        out = self.node("Mul", self.node("Cast", sums, to=TensorProto.FLOAT), self.constant(least.astype(np.float32)))
        return self.node("Add", out, self.constant(bias.astype(np.float32)))

    def small(self, state: str, most: float) -> tuple[str, float]:
        """A state without negative values in eight bits, up to ``most``, and its scale."""
        scale = np.array(most / 255, np.float32)
        return self.node("QuantizeLinear", state, self.constant(scale), self.constant(np.array(0, np.uint8))), float(
            scale
        )

    def three(self, state: str, dilation: int, nothing: int) -> str:
        """Before, here and after along the middle axis, ``dilation`` apart, side by side; nothing beyond the ends."""
        pads = self.constant(np.array([0, dilation, 0, 0, dilation, 0]))
        padded = self.node("Pad", state, pads, self.constant(np.array(nothing, np.uint8)))
        axis, end = self.constant(np.array([1])), np.iinfo(np.int64).max
        cuts = ((0, -2 * dilation), (dilation, -dilation), (2 * dilation, end))
        parts = [
            self.node("Slice", padded, self.constant(np.array([first])), self.constant(np.array([last])), axis)
            for first, last in cuts
        ]
        return self.node("Concat", *parts, axis=-1)

    def head(self, state: str, weights: ndarray, bias: ndarray) -> str:
        scores = self.node("MatMul", state, self.constant(weights.T.astype(np.float32)))
        return self.node("Softmax", self.node("Add", scores, self.constant(bias.astype(np.float32))), axis=-1)

    def save(
        self, path: Path, inputs: dict[str, list[str | int]], output: str, shape: list[str | int], about: dict[str, str]
    ) -> None:
        graph = helper.make_graph(
            self.nodes,
            about["name"],
            [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="mibao")
        model.ir_version = 8
        helper.set_model_props(model, about)
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString(deterministic=True))


def chinese(
    weights: dict[str, ndarray], most: Sequence[float], dilations: tuple[int, ...], path: Path, about: dict[str, str]
) -> None:
    """``most``: how far the state before each block goes."""
    graph = Graph()
    names = ("characters", "before", "after", "both")
    tables = [graph.table(weights[f"tables.{index}.weight"], name) for index, name in enumerate(names)]
    seen = graph.node("Concat", graph.three(tables[0][0], 1, _NOTHING), *(rows for rows, _ in tables[1:]), axis=-1)
    scale = np.concatenate([np.tile(tables[0][1], 3), *(scale for _, scale in tables[1:])])
    both = np.concatenate([weights["first.linear.weight"], weights["hashed.weight"]], axis=1)
    state = graph.node("Relu", graph.linear(seen, scale, _NOTHING, both, weights["first.linear.bias"]))
    for index, dilation in enumerate(dilations):
        block = f"blocks.{index}.linear"
        small, step = graph.small(state, most[index])
        near = graph.three(small, dilation, 0)
        columns = weights[f"{block}.weight"].shape[1]
        more = graph.linear(near, np.full(columns, step), 0, weights[f"{block}.weight"], weights[f"{block}.bias"])
        state = graph.node("Add", state, graph.node("Relu", more))
    output = graph.head(state, weights["head.weight"], weights["head.bias"])
    shape: list[str | int] = ["windows", "characters"]
    graph.save(path, dict.fromkeys(names, shape), output, [*shape, len(weights["head.bias"])], about)


def english(weights: dict[str, ndarray], most: float, path: Path, about: dict[str, str]) -> None:
    """``most``: how far the state before the second layer goes."""
    graph = Graph()
    columns, scales = [], []
    for index in range(7):
        rows = graph.node("Gather", "features", graph.constant(np.array(index)), axis=1)
        column, scale = graph.table(weights[f"tables.{index}.weight"], rows)
        columns.append(column)
        scales.append(scale)
    scale = np.concatenate(scales)
    none = graph.constant(np.full((1, len(scale)), _NOTHING, np.uint8))
    padded = graph.node("Concat", none, graph.node("Concat", *columns, axis=-1), axis=0)
    near = graph.node("Gather", padded, "windows", axis=0)
    flat = graph.node("Reshape", near, graph.constant(np.array([-1, 9 * len(scale)])))
    first = graph.linear(flat, np.tile(scale, 9), _NOTHING, weights["first.weight"], weights["first.bias"])
    state = graph.node("Relu", first)
    small, step = graph.small(state, most)
    more = graph.linear(
        small, np.full(len(weights["first.bias"]), step), 0, weights["second.weight"], weights["second.bias"]
    )
    state = graph.node("Add", state, graph.node("Relu", more))
    output = graph.head(state, weights["head.weight"], weights["head.bias"])
    graph.save(
        path, {"features": ["words", 7], "windows": ["tagged", 9]}, output, ["tagged", len(weights["head.bias"])], about
    )
