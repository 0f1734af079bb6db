"""Arrays in .npy form, read strictly: what arrives may come from anyone.

NumPy's own reader evaluates the header as Python text, and raises whatever that text provokes.
Source: NumPy Enhancement Proposal 1, format versions 1 and 2.
"""

from __future__ import annotations

import re

import numpy as np
from jaxtyping import Real
from numpy import ndarray

from mibao.errors import InputError

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}
_MAX_HEADER_BYTES = 1024
_HEADER = re.compile(
    rb"\{ ?'descr': ?'(<f4|<f8|<i8)', ?'fortran_order': ?(True|False), ?'shape': ?"
    rb"\(([0-9]{1,9}), ?([0-9]{1,9})?,?\),? ?\}[ ]*\n?"
)
_FORM = "expected an array in .npy form: real numbers (float64, float32 or int64), shape (rows, features)"


def array_of(data: bytes, *, name: str) -> Real[ndarray, "..."]:
    """The array in ``data``, of one or two axes; ``name`` stands in the error.

    Raises:
        InputError: not an array of little-endian float32, float64 or int64, or not of the length its header states.
    """
    start = len(_MAGIC) + 2
    size_bytes = _LENGTH_BYTES.get((data[start - 2], data[start - 1])) if len(data) >= start else None
    if size_bytes is None or not data.startswith(_MAGIC):
        raise InputError(f"{name}: {_FORM}")
    body = start + size_bytes + int.from_bytes(data[start : start + size_bytes], "little")
    if body > min(len(data), start + size_bytes + _MAX_HEADER_BYTES):
        raise InputError(f"{name}: {_FORM}; its header does not fit")
    header = _HEADER.fullmatch(data[start + size_bytes : body])
    if header is None:
        raise InputError(f"{name}: {_FORM}; its header says otherwise")
    kind = np.dtype(header[1].decode("ascii"))
    shape = tuple(int(axis) for axis in header.group(3, 4) if axis is not None)
    expected = int(np.prod(shape, dtype=object)) * kind.itemsize
    if len(data) - body != expected:
        raise InputError(f"{name}: expected {expected} bytes of numbers, got {len(data) - body}")
    values = np.frombuffer(data, dtype=kind, offset=body)
    return values.reshape(shape, order="F") if header[2] == b"True" else values.reshape(shape)
