"""The model file that the sealed rows are measured on: 84 Llama-shaped bf16 tensors, 1.055 GB, from a fixed seed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.venvs import ROOT

if TYPE_CHECKING:
    from numpy import ndarray

CACHE = ROOT / ".bench-cache"
MODEL = CACHE / "llama-1GB.safetensors"
LARGE_TENSOR = "model.embed_tokens.weight"  # 131 MB
_HIDDEN, _INNER, _KEYS, _WORDS, _LAYERS = 2048, 5632, 256, 32_000, 9


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor's shape: TinyLlama's, nine layers of it."""
    found: dict[str, tuple[int, ...]] = {LARGE_TENSOR: (_WORDS, _HIDDEN)}
    for layer in range(_LAYERS):
        here = f"model.layers.{layer}"
        found |= {
            f"{here}.self_attn.q_proj.weight": (_HIDDEN, _HIDDEN),
            f"{here}.self_attn.k_proj.weight": (_KEYS, _HIDDEN),
            f"{here}.self_attn.v_proj.weight": (_KEYS, _HIDDEN),
            f"{here}.self_attn.o_proj.weight": (_HIDDEN, _HIDDEN),
            f"{here}.mlp.gate_proj.weight": (_INNER, _HIDDEN),
            f"{here}.mlp.up_proj.weight": (_INNER, _HIDDEN),
            f"{here}.mlp.down_proj.weight": (_HIDDEN, _INNER),
            f"{here}.input_layernorm.weight": (_HIDDEN,),
            f"{here}.post_attention_layernorm.weight": (_HIDDEN,),
        }
    return found | {"model.norm.weight": (_HIDDEN,), "lm_head.weight": (_WORDS, _HIDDEN)}


def model() -> Path:
    """The file, made on first use; it lies in the page cache when this returns."""
    if not MODEL.exists():
        CACHE.mkdir(exist_ok=True)
        part = MODEL.with_suffix(".part")
        _write(part)
        part.rename(MODEL)
    read_once(MODEL)
    return MODEL


def read_once(path: Path) -> None:
    """Bring ``path`` into the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 22):
            pass


def _write(path: Path) -> None:
    import numpy as np

    draw = np.random.default_rng(0)
    table: dict[str, dict[str, object]] = {}
    at = 0
    for name, shape in shapes().items():
        end = at + 2 * math.prod(shape)
        table[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for shape in shapes().values():
            file.write(_bf16(draw.standard_normal(math.prod(shape), np.float32)).tobytes())


def _bf16(values: ndarray) -> ndarray:
    """The upper half of each float32: bfloat16, rounded toward zero."""
    import numpy as np

    upper: ndarray = (values.view(np.uint32) >> 16).astype("<u2")
    return upper
