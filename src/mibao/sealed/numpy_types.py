"""The NumPy type of a safetensors data type."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from mibao.errors import InputError, MissingExtra

_NUMPY: Mapping[str, str] = MappingProxyType(
    {
        "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "I32": "<i4", "U32": "<u4",
        "F32": "<f4", "I64": "<i8", "U64": "<u8", "F64": "<f8", "C64": "<c8",
    }
)  # fmt: skip
_ML_DTYPES: Mapping[str, str] = MappingProxyType(
    {
        "BF16": "bfloat16", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu",
        "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    }
)  # fmt: skip


def numpy_dtype(dtype: str) -> np.dtype:
    """The NumPy type with the same bytes; bfloat16 and the 8-bit floats come from ``ml_dtypes``.

    Raises:
        InputError: elements narrower than a byte: NumPy has no packed types, take the raw bytes.
        MissingExtra: ``ml_dtypes`` is not installed.
    """
    if dtype in _NUMPY:
        return np.dtype(_NUMPY[dtype])
    if dtype not in _ML_DTYPES:
        raise InputError(f"NumPy has no type for {dtype}, whose elements are narrower than a byte: take its raw bytes")
    try:
        module = importlib.import_module("ml_dtypes")
    except ImportError as error:
        raise MissingExtra(f"{dtype} in NumPy", extra="ml-dtypes") from error
    found: np.dtype = np.dtype(getattr(module, _ML_DTYPES[dtype]))
    return found
