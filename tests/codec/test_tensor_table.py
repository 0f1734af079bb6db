"""The safetensors header, read strictly."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import deserialize
from safetensors.numpy import save

from mibao.codec import tensor_table
from mibao.errors import InputError

shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
names = st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__")


def header(entries: object) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


def one(**changes: object) -> bytes:
    return header({"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | changes})


@given(st.dictionaries(names, st.tuples(shapes, st.sampled_from(["<f4", "u1", "<i8"])), max_size=6))
def test_every_file_that_safetensors_writes_reads_as_safetensors_reads_it(described):
    file = save({name: np.zeros(shape, kind) for name, (shape, kind) in described.items()})
    table = tensor_table.parse(file[: tensor_table.header_bytes(file)])
    theirs = {name: (info["dtype"], tuple(info["shape"])) for name, info in deserialize(file)}
    assert {each.name: (each.dtype, each.shape) for each in table.tensors} == theirs
    assert table.data_bytes == len(file) - tensor_table.header_bytes(file)


def test_order_follows_the_bytes_whatever_the_order_of_the_json():
    second = {"dtype": "U8", "shape": [1], "data_offsets": [2, 3]}
    first = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
    table = tensor_table.parse(header({"b": second, "a": first, "__metadata__": {"format": "pt"}}))
    assert [each.name for each in table.tensors] == ["a", "b"]
    assert table.metadata == {"format": "pt"}


@pytest.mark.parametrize(("dtype", "shape", "nbytes"), [("F4", [4], 2), ("F6_E2M3", [4], 3), ("F8_E8M0", [3], 3)])
def test_sub_byte_types_count_bits(dtype, shape, nbytes):
    table = tensor_table.parse(header({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, nbytes]}}))
    assert table.tensors[0].nbytes == nbytes


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"\x01\x00", "at least 8 bytes"),
        (b"\xff" * 8, "at most 100000000 bytes"),
        (one() + b" ", "another length than it says"),
        ((2).to_bytes(8, "little") + b"{]", "is not JSON"),
        ((2).to_bytes(8, "little") + b"\xff\xff", "is not JSON"),
        ((200_000).to_bytes(8, "little") + b"[" * 200_000, "is not JSON"),
        (header([]), "JSON object"),
        ((15).to_bytes(8, "little") + b'{"a":{},"a":{}}', "stands twice"),
        (header({"__metadata__": {"a": 1}}), "texts as metadata"),
        (header({"w": {}}), "dtype, shape and data_offsets"),
        (one(extra=1), "dtype, shape and data_offsets"),
        (one(dtype="F33"), "expected a data type"),
        (one(dtype=[]), "expected a data type"),
        (one(shape=[2, 3.0]), "lists of sizes"),
        (one(shape=[True]), "lists of sizes"),
        (one(shape=[-2, -3]), "lists of sizes"),
        (one(shape=[1] * 65), "lists of sizes"),
        (one(data_offsets=[0, 24, 24]), "lists of sizes"),
        (one(shape=[2, 4]), "disagrees with its shape"),
        (one(data_offsets=[24, 0]), "disagrees with its shape"),
        (one(dtype="F4", shape=[3], data_offsets=[0, 1]), "disagrees with its shape"),
        (one(shape=[1 << 50], dtype="U8", data_offsets=[0, 1 << 50]), "disagrees with its shape"),
        (one(data_offsets=[8, 32]), "leave a gap or overlap"),
    ],
)
def test_a_malformed_header_is_refused(bad, message):
    with pytest.raises(InputError, match=message):
        tensor_table.parse(bad)


def test_overlapping_tensors_are_refused():
    entry = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
    with pytest.raises(InputError, match="leave a gap or overlap"):
        tensor_table.parse(header({"a": entry, "b": entry}))
