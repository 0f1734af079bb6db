"""Sealed checkpoints served through transformers: the same tokens as in clear, and nothing on any disk."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import sealed_kit as kit
from mibao import sealed
from mibao.errors import InputError, IntegrityError, KeyMismatch, MissingExtra

KEYS = {"identity": kit.ALICE, "signer": kit.VENDOR.public}
PROMPT = torch.tensor([[3, 1, 4, 1, 5]])
torch.set_num_threads(1)  # tiny products: threads that wait for one another cost more than they do


def seal(folder, path):
    sealed.seal(folder, path, recipients=[kit.ALICE.public], signer=kit.VENDOR, model_id="acme/tiny", version=3)
    return path


def tiny_llama(*, tied=True):
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=tied, max_position_embeddings=64,
    )  # fmt: skip
    return LlamaForCausalLM(config).bfloat16().eval()


def tiny_tokenizer():
    words = ["<unk>", "<s>", "</s>", "<|im_start|>", "the", "sealed", "model", "runs"]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", model_max_length=64,
        additional_special_tokens=["<|im_start|>"], padding_side="left",
        chat_template="{% for m in messages %}<|im_start|> {{ m['content'] }} {% endfor %}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model = tiny_llama()
    model.generation_config = GenerationConfig(eos_token_id=90, max_new_tokens=9)
    model.save_pretrained(folder, max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


@pytest.fixture(scope="module")
def path(folder, tmp_path_factory):
    return seal(folder, tmp_path_factory.mktemp("sealed") / "tiny.mibao")


def greedy(model, count=8):
    inputs = {"attention_mask": torch.ones_like(PROMPT), "max_new_tokens": count, "do_sample": False}
    return model.generate(PROMPT.to(model.device), pad_token_id=0, **inputs).cpu()


def changed(folder, tmp_path, **changes):
    """A copy of a checkpoint with some of its configuration changed."""
    target = tmp_path / "changed"
    target.mkdir()
    for each in folder.iterdir():
        (target / each.name).write_bytes(each.read_bytes())
    config = json.loads((target / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_a_sealed_checkpoint_gives_the_same_greedy_tokens_as_in_clear(folder, path):
    plain = AutoModelForCausalLM.from_pretrained(folder)
    found = sealed.from_sealed(AutoModelForCausalLM, path, **KEYS)
    assert type(found) is LlamaForCausalLM
    assert not found.training
    assert found.dtype == plain.dtype == torch.bfloat16
    assert torch.equal(found(PROMPT).logits, plain(PROMPT).logits)
    assert torch.equal(greedy(found), greedy(plain))


def test_its_parameters_are_views_of_the_one_buffer_that_was_decrypted_into(path):
    found = sealed.from_sealed(AutoModelForCausalLM, path, **KEYS)
    assert len({each.untyped_storage().data_ptr() for each in found.parameters()}) == 1
    assert found.lm_head.weight is found.model.embed_tokens.weight


def test_configuration_and_generation_settings_come_with_it(folder, path):
    assert sealed.from_sealed(AutoModelForCausalLM, path, **KEYS).generation_config.eos_token_id == 90
    assert sealed.from_sealed(GenerationConfig, path, **KEYS).max_new_tokens == 9
    found, plain = sealed.from_sealed(AutoConfig, path, **KEYS), AutoConfig.from_pretrained(folder)
    assert {**found.to_dict(), "_name_or_path": ""} == {**plain.to_dict(), "_name_or_path": ""}


@pytest.mark.parametrize("as_file", [True, False])
def test_the_tokenizer_comes_with_it(folder, path, tmp_path, as_file):
    if not as_file:  # older checkpoints hold the template within the settings
        target = changed(folder, tmp_path)
        settings = json.loads((target / "tokenizer_config.json").read_text())
        settings["chat_template"] = (target / "chat_template.jinja").read_text()
        (target / "chat_template.jinja").unlink()
        (target / "tokenizer_config.json").write_text(json.dumps(settings))
        path = seal(target, tmp_path / "m.mibao")
    found, plain = sealed.from_sealed(AutoTokenizer, path, **KEYS), AutoTokenizer.from_pretrained(folder)
    text = "the sealed model <|im_start|> walks </s>"
    assert found(text).input_ids == plain(text).input_ids
    assert found.decode(found(text).input_ids, skip_special_tokens=True) == "the sealed model"
    assert found.all_special_tokens == plain.all_special_tokens
    assert (found.eos_token_id, found.padding_side, found.model_max_length) == (2, "left", 64)
    chat = [{"role": "user", "content": "runs"}]
    assert found.apply_chat_template(chat, tokenize=False) == plain.apply_chat_template(chat, tokenize=False)


@pytest.mark.parametrize(("given", "expected"), [("float32", torch.float32), (torch.float16, torch.float16)])
def test_a_data_type_can_be_asked_for(path, given, expected):
    assert sealed.from_sealed(AutoModelForCausalLM, path, **KEYS, dtype=given).dtype == expected


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}, *([{"": "cuda"}] * torch.cuda.is_available())])
def test_a_device_map_is_followed(path, device_map):
    found = sealed.from_sealed(AutoModelForCausalLM, path, **KEYS, device_map=device_map)
    expected = sealed.from_sealed(LlamaForCausalLM, path, **KEYS)(PROMPT).logits
    assert torch.equal(found(PROMPT.to(found.device)).logits.cpu().argmax(-1), expected.argmax(-1))


def test_a_configuration_can_be_given(path):
    config = sealed.from_sealed(AutoConfig, path, **KEYS)
    config.num_hidden_layers = 1
    found = sealed.from_sealed(AutoModelForCausalLM, path, **KEYS, config=config)
    assert len(found.model.layers) == 1
    assert isinstance(sealed.from_sealed(AutoModel, path, **KEYS), transformers.LlamaModel)


_events = {"on": False, "seen": []}


def _record(event, arguments):
    if not _events["on"]:
        return
    if event == "open":
        name, _, flags = arguments
        if isinstance(name, str) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            _events["seen"].append((event, name))
    elif event.startswith(("socket.", "tempfile.", "os.rename", "shutil.", "subprocess.")):
        _events["seen"].append((event, arguments))


def test_nothing_is_written_anywhere_and_nobody_is_called(path, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    sys.addaudithook(_record)
    _events["on"] = True
    try:
        (tmp_path / "canary").write_bytes(b"seen?")
        greedy(sealed.from_sealed(AutoModelForCausalLM, path, **KEYS, device_map="auto"))
        sealed.from_sealed(AutoTokenizer, path, **KEYS)
    finally:
        _events["on"] = False
    assert _events["seen"] == [("open", str(tmp_path / "canary"))]
    assert [each.name for each in tmp_path.iterdir()] == ["canary"]


# Refusals


def test_code_is_refused(path):
    with pytest.raises(InputError, match="never code"):
        sealed.from_sealed(AutoModelForCausalLM, path, **KEYS, trust_remote_code=True)
    with pytest.raises(InputError, match="a kernel from a hub is code"):
        sealed.from_sealed(AutoModelForCausalLM, path, **KEYS, attn_implementation="kernels-community/flash-attn")


def test_a_model_that_would_bring_its_own_code_is_refused(folder, tmp_path):
    target = changed(folder, tmp_path, model_type="bring-your-own", auto_map={"AutoModelForCausalLM": "evil.Model"})
    (target / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(InputError, match="'bring-your-own': transformers has no code of its own"):
        sealed.from_sealed(AutoModelForCausalLM, seal(target, tmp_path / "m.mibao"), **KEYS)


def test_which_code_runs_is_not_the_files_choice(folder, tmp_path):
    changes = {"auto_map": {"AutoModelForCausalLM": "evil.Model"}, "_attn_implementation": "evil/kernel"}
    target = changed(folder, tmp_path, **changes)
    found = sealed.from_sealed(AutoModelForCausalLM, seal(target, tmp_path / "m.mibao"), **KEYS)
    assert type(found) is LlamaForCausalLM
    assert "/" not in found.config._attn_implementation
    assert not hasattr(found.config, "auto_map")


@pytest.mark.parametrize("device_map", ["disk", {"model": "disk", "lm_head": "cpu"}])
def test_weights_on_the_disk_are_refused(path, device_map):
    with pytest.raises(InputError, match="in clear"):
        sealed.from_sealed(AutoModelForCausalLM, path, **KEYS, device_map=device_map)


def test_a_map_that_comes_out_with_weights_on_the_disk_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"does not load this model: .*offloaded to the disk"):
        sealed.from_sealed(AutoModelForCausalLM, path, **KEYS, device_map="auto", max_memory={"cpu": 10_000})
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_is_absent_or_of_another_shape_is_refused(folder, tmp_path):
    target = tmp_path / "one"
    target.mkdir()
    (target / "config.json").write_bytes((folder / "config.json").read_bytes())
    weights = {name: each for file in folder.glob("*.safetensors") for name, each in load_file(file).items()}
    norm = weights.pop("model.norm.weight")
    save_file(weights, target / "model.safetensors")
    with pytest.raises(InputError, match=r"model: has no 'model.norm.weight', one of 1 weights"):
        sealed.from_sealed(AutoModelForCausalLM, seal(target, tmp_path / "a.mibao"), **KEYS)
    save_file(weights | {"model.norm.weight": norm[:5].clone()}, target / "model.safetensors")
    with pytest.raises(InputError, match="does not load this model"):
        sealed.from_sealed(AutoModelForCausalLM, seal(target, tmp_path / "b.mibao"), **KEYS)


def test_what_is_no_model_is_refused(path, folder, tmp_path):
    with pytest.raises(InputError, match="expected a class of models"):
        sealed.from_sealed(dict, path, **KEYS)
    with pytest.raises(InputError, match="one of 1 weights that LlamaForSequenceClassification needs"):
        sealed.from_sealed(AutoModelForSequenceClassification, path, **KEYS)
    with pytest.raises(InputError, match="does not take a model of type 'llama'"):
        sealed.from_sealed(transformers.AutoModelForSpeechSeq2Seq, path, **KEYS)
    alone = seal(next(folder.glob("*.safetensors")), tmp_path / "m.mibao")
    for cls, name in ((AutoModelForCausalLM, "config.json"), (AutoTokenizer, "tokenizer.json")):
        with pytest.raises(InputError, match=f"no {name} was sealed"):
            sealed.from_sealed(cls, alone, **KEYS)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"model_type": 3}', b'{"model_type": "llama", "hidden_size": "x"}'])
def test_a_configuration_that_is_none_is_refused(folder, tmp_path, content):
    target = changed(folder, tmp_path)
    (target / "config.json").write_bytes(content)
    with pytest.raises(InputError):
        sealed.from_sealed(AutoModelForCausalLM, seal(target, tmp_path / "m.mibao"), **KEYS)


def test_an_altered_file_makes_no_model(path, tmp_path):
    data = Path(path).read_bytes()
    for offset in (-20, -len(data) // 3):
        (tmp_path / "m").write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        with pytest.raises(IntegrityError):
            for cls in (AutoTokenizer, GenerationConfig, AutoModelForCausalLM):
                sealed.from_sealed(cls, tmp_path / "m", **KEYS)


def test_another_signer_and_an_older_version_are_refused(path):
    with pytest.raises(KeyMismatch):
        sealed.from_sealed(AutoModelForCausalLM, path, identity=kit.ALICE, signer=kit.RIVAL.public)
    with pytest.raises(IntegrityError, match="older"):
        sealed.from_sealed(AutoModelForCausalLM, path, **KEYS, min_version=4)


def test_without_transformers_the_extra_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"extra 'transformers'"):
        sealed.from_sealed(AutoModelForCausalLM, path, **KEYS)
