"""From trained weights to an ONNX file: tables in eight bits, everything else in 32, what the file says of itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper

_OPSET = 17


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

    def table(self, weights: ndarray, rows: str) -> str:
        """Rows of a table that is kept in eight bits, each column with its own scale."""
        scale = np.maximum(np.abs(weights).max(axis=0), 1e-9).astype(np.float32) / 127
        small = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
        found = self.node("Gather", self.constant(small), rows, axis=0)
        return self.node("Mul", self.node("Cast", found, to=TensorProto.FLOAT), self.constant(scale))

    def linear(self, state: str, weights: ndarray, bias: ndarray | None = None) -> str:
        out = self.node("MatMul", state, self.constant(weights.T.astype(np.float32)))
        return out if bias is None else self.node("Add", out, self.constant(bias.astype(np.float32)))

    def convolution(self, state: str, weights: ndarray, bias: ndarray, dilation: int) -> str:
        """Width three over the last axis, as training does it: zeros beyond the ends."""
        columns = weights.shape[1] // 3
        shaped = weights.reshape(weights.shape[0], 3, columns).transpose(0, 2, 1)
        return self.node(
            "Conv", state, self.constant(shaped.astype(np.float32)), self.constant(bias.astype(np.float32)),
            kernel_shape=[3], dilations=[dilation], pads=[dilation, dilation],
        )  # fmt: skip

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


def chinese(weights: dict[str, ndarray], dilations: tuple[int, ...], path: Path, about: dict[str, str]) -> None:
    graph = Graph()
    names = ("characters", "before", "after", "both")
    tables = [graph.table(weights[f"tables.{index}.weight"], name) for index, name in enumerate(names)]
    hashed = graph.linear(graph.node("Concat", *tables[1:], axis=-1), weights["hashed.weight"])
    across = [graph.node("Transpose", part, perm=[0, 2, 1]) for part in (tables[0], hashed)]
    state = graph.convolution(across[0], weights["first.linear.weight"], weights["first.linear.bias"], 1)
    state = graph.node("Relu", graph.node("Add", state, across[1]))
    for index, dilation in enumerate(dilations):
        block = f"blocks.{index}.linear"
        step = graph.convolution(state, weights[f"{block}.weight"], weights[f"{block}.bias"], dilation)
        state = graph.node("Add", state, graph.node("Relu", step))
    state = graph.node("Transpose", state, perm=[0, 2, 1])
    logits = graph.linear(state, weights["head.weight"], weights["head.bias"])
    output = graph.node("Softmax", logits, axis=-1)
    shape: list[str | int] = ["windows", "characters"]
    graph.save(path, dict.fromkeys(names, shape), output, [*shape, len(weights["head.bias"])], about)


def english(weights: dict[str, ndarray], path: Path, about: dict[str, str]) -> None:
    graph = Graph()
    columns = []
    for index in range(7):
        rows = graph.node("Gather", "features", graph.constant(np.array(index)), axis=1)
        columns.append(graph.table(weights[f"tables.{index}.weight"], rows))
    words = graph.node("Concat", *columns, axis=-1)
    width = sum(weights[f"tables.{index}.weight"].shape[1] for index in range(7))
    padded = graph.node("Concat", graph.constant(np.zeros((1, width), np.float32)), words, axis=0)
    near = graph.node("Gather", padded, "windows", axis=0)
    flat = graph.node("Reshape", near, graph.constant(np.array([-1, 9 * width])))
    state = graph.node("Relu", graph.linear(flat, weights["first.weight"], weights["first.bias"]))
    step = graph.node("Relu", graph.linear(state, weights["second.weight"], weights["second.bias"]))
    logits = graph.linear(graph.node("Add", state, step), weights["head.weight"], weights["head.bias"])
    output = graph.node("Softmax", logits, axis=-1)
    graph.save(
        path, {"features": ["words", 7], "windows": ["tagged", 9]}, output, ["tagged", len(weights["head.bias"])], about
    )
