"""Sealed PEFT adapters."""

import json
import sys

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import sealed_kit as kit
from mibao import sealed
from mibao.errors import InputError, IntegrityError, MissingExtra

KEYS = {"identity": kit.ALICE, "signer": kit.VENDOR.public}
PROMPT = torch.tensor([[3, 1, 4, 1, 5]])
torch.set_num_threads(1)  # tiny products: threads that wait for one another cost more than they do

# peft 0.21 asks transformers 5.23 for a name that has another one since.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def base(hidden=32):
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=96, hidden_size=hidden, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def seal(folder, path):
    sealed.seal(folder, path, recipients=[kit.ALICE.public], signer=kit.VENDOR, model_id="acme/adapter")
    return path


def written(folder, config):
    torch.manual_seed(12)
    adapted = get_peft_model(base(), config)
    for name, each in adapted.named_parameters():
        if each.requires_grad:  # a new adapter changes nothing
            torch.nn.init.normal_(each)
        assert each.requires_grad == ("lora" in name or "ia3" in name)
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return written(tmp_path_factory.mktemp("lora"), config)


def changed(folder, target, **changes):
    target.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (target / name).write_bytes((folder / name).read_bytes())
    config = json.loads((target / "adapter_config.json").read_text()) | changes
    (target / "adapter_config.json").write_text(json.dumps(config))
    return target


def untouched(model):
    return set(model.state_dict()) == set(base().state_dict()) and torch.equal(
        model(PROMPT).logits, base()(PROMPT).logits
    )


def test_a_sealed_adapter_computes_what_it_computes_in_clear(folder, tmp_path):
    found = sealed.adapter_from_sealed(base(), seal(folder, tmp_path / "a.mibao"), **KEYS)
    plain = PeftModel.from_pretrained(base(), folder)
    assert isinstance(found, PeftModel)
    assert torch.equal(found(PROMPT).logits, plain(PROMPT).logits)
    assert not torch.equal(found(PROMPT).logits, base()(PROMPT).logits)
    assert not any(each.requires_grad for each in found.parameters())


def test_other_kinds_of_adapters_and_training_on_work_too(tmp_path):
    config = IA3Config(target_modules=["k_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    path = seal(written(tmp_path / "ia3", config), tmp_path / "a.mibao")
    found = sealed.adapter_from_sealed(base(), path, **KEYS, adapter_name="tuned", is_trainable=True)
    plain = PeftModel.from_pretrained(base(), tmp_path / "ia3")
    assert torch.equal(found.eval()(PROMPT).logits, plain(PROMPT).logits)
    assert {name.rpartition(".")[2] for name, each in found.named_parameters() if each.requires_grad} == {"tuned"}


def test_an_adapter_goes_onto_a_sealed_model(folder, tmp_path):
    base().save_pretrained(tmp_path / "base")
    model = sealed.from_sealed(LlamaForCausalLM, seal(tmp_path / "base", tmp_path / "m.mibao"), **KEYS)
    found = sealed.adapter_from_sealed(model, seal(folder, tmp_path / "a.mibao"), **KEYS)
    assert torch.equal(found(PROMPT).logits, PeftModel.from_pretrained(base(), folder)(PROMPT).logits)


def test_an_altered_adapter_leaves_the_model_as_it_was(folder, tmp_path):
    path = seal(folder, tmp_path / "a.mibao")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    model = base()
    with pytest.raises(IntegrityError):
        sealed.adapter_from_sealed(model, path, **KEYS)
    assert untouched(model)


def test_an_adapter_of_another_model_is_refused_and_leaves_the_model_as_it_was(folder, tmp_path):
    path = seal(changed(folder, tmp_path / "c", target_modules=["no_such_layer"]), tmp_path / "a.mibao")
    model = base()
    with pytest.raises(InputError, match="does not fit this model"):
        sealed.adapter_from_sealed(model, path, **KEYS)
    assert untouched(model)
    with pytest.raises(InputError, match="does not fit this model"):
        sealed.adapter_from_sealed(base(hidden=64), seal(folder, tmp_path / "b.mibao"), **KEYS)


@pytest.mark.parametrize(("fault", "message"), [("absent", "1 of the weights"), ("extra", "1 too many")])
def test_weights_absent_or_too_many_are_refused_and_leave_the_model_as_it_was(folder, tmp_path, fault, message):
    target = changed(folder, tmp_path / "c")
    weights = load_file(target / "adapter_model.safetensors")
    if fault == "absent":
        del weights[min(weights)]
    else:
        weights["base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 32)
    save_file(weights, target / "adapter_model.safetensors")
    model = base()
    with pytest.raises(InputError, match=message):
        sealed.adapter_from_sealed(model, seal(target, tmp_path / "a.mibao"), **KEYS)
    assert untouched(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "names code to import"),
        ({"peft_type": "NO_SUCH"}, "not one that this version of peft knows"),
    ],
)
def test_a_configuration_that_names_code_or_is_unknown_is_refused(folder, tmp_path, changes, message):
    path = seal(changed(folder, tmp_path / "c", **changes), tmp_path / "a.mibao")
    with pytest.raises(InputError, match=message):
        sealed.adapter_from_sealed(base(), path, **KEYS)


def test_what_is_no_adapter_is_refused(tmp_path):
    (tmp_path / "m").write_bytes(kit.sealed_bytes())
    with pytest.raises(InputError, match=r"no adapter_config.json was sealed"):
        sealed.adapter_from_sealed(base(), tmp_path / "m", **KEYS)


def test_without_peft_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"extra 'transformers'"):
        sealed.adapter_from_sealed(base(), tmp_path / "m", **KEYS)
