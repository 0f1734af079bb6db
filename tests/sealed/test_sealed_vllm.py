"""Sealed models in vLLM, as far as they can be tested without it.

vLLM is several gigabytes and needs a GPU. What stands in for it here has the three names that the loader uses, with
vLLM's signatures, and models that take their weights by ``load_weights`` as vLLM's do. The real one was not run.
"""

import importlib.metadata
import sys
import types
from abc import ABC, abstractmethod

import pytest
import torch
from safetensors.torch import save

import sealed_kit as kit
from mibao.crypto import key_text
from mibao.crypto.keys import encode_public
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.sealed import vllm_loader


class LoadConfig:
    def __init__(self, **extra):
        self.load_format = "mibao"
        self.model_loader_extra_config = extra


class ModelConfig:
    quantization = None


class BaseModelLoader(ABC):
    def __init__(self, load_config):
        self.load_config = load_config

    @abstractmethod
    def download_model(self, model_config): ...

    @abstractmethod
    def load_weights(self, model, model_config): ...

    def load_model(self, vllm_config, model_config, prefix=""):
        model = Stacked()
        self.load_weights(model, model_config)
        return model.eval()


class Stacked(torch.nn.Module):
    """Two projections of the checkpoint in one parameter, as vLLM stacks q, k and v."""

    def __init__(self):
        super().__init__()
        self.qk_proj = torch.nn.Linear(64, 128, bias=False)
        self.norm = torch.nn.LayerNorm(128, bias=False)

    def forward(self, x):
        return self.norm(self.qk_proj(x))

    def load_weights(self, weights):
        loaded = set()
        for name, tensor in weights:
            if name == "norm.weight":
                self.norm.weight.copy_(tensor)
                loaded.add(name)
            else:
                self.qk_proj.weight[64 * (name == "k_proj.weight") :][:64].copy_(tensor)
                loaded.add("qk_proj.weight")
        return loaded


TENSORS = {"q_proj.weight": torch.randn(64, 64), "k_proj.weight": torch.randn(64, 64), "norm.weight": torch.rand(128)}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("vllm") / "m.mibao"
    path.write_bytes(kit.sealed_bytes(("m.safetensors", save(TENSORS))))
    return path


@pytest.fixture
def loaders(monkeypatch):
    """What stands in for ``vllm.model_executor.model_loader``, with the loader registered as vLLM would."""
    registry = {}
    module = types.ModuleType("vllm.model_executor.model_loader")
    module.BaseModelLoader = BaseModelLoader
    module.register_model_loader = lambda name: lambda cls: registry.setdefault(name, cls)
    for name in ("vllm", "vllm.model_executor"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("MIBAO_IDENTITY", key_text.encode_plain(kit.ALICE))
    (entry,) = [each for each in importlib.metadata.entry_points(group="vllm.general_plugins") if each.name == "mibao"]
    entry.load()()
    return registry


def options(path, **changes):
    return {"path": str(path), "signer": encode_public(kit.VENDOR.public), "min_version": 3} | changes


def loader(loaders, path, **changes):
    return loaders["mibao"](LoadConfig(**options(path, **changes)))


def refuses_to_run(model):
    with pytest.raises(IntegrityError, match="refuses to run"):
        model(torch.ones(1, 64))
    return not any(each.any() for each in model.parameters())


def test_the_entry_point_registers_a_loader_that_fills_a_model(loaders, path):
    found = loader(loaders, path)
    assert isinstance(found, BaseModelLoader)
    found.download_model(ModelConfig())
    model = found.load_model(None, ModelConfig())
    assert torch.equal(model.qk_proj.weight, torch.cat([TENSORS["q_proj.weight"], TENSORS["k_proj.weight"]]))
    assert torch.equal(model.norm.weight, TENSORS["norm.weight"])
    assert model(torch.ones(1, 64)).shape == (1, 128)


def test_a_file_altered_in_its_last_tensor_leaves_no_weights_and_a_model_that_refuses_to_run(loaders, path, tmp_path):
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    (tmp_path / "m").write_bytes(bytes(data))
    model = Stacked()
    with pytest.raises(IntegrityError, match="was altered"):
        loader(loaders, tmp_path / "m").load_weights(model, ModelConfig())
    assert refuses_to_run(model)


def test_a_model_that_was_given_too_little_refuses_to_run(loaders, tmp_path):
    few = {name: each for name, each in TENSORS.items() if name != "norm.weight"}
    (tmp_path / "m").write_bytes(kit.sealed_bytes(("m.safetensors", save(few))))
    model = Stacked()
    with pytest.raises(InputError, match=r"model: has no 'norm.weight', one of 1 weights"):
        loader(loaders, tmp_path / "m").load_weights(model, ModelConfig())
    assert refuses_to_run(model)


def test_another_signer_an_older_version_and_a_rollback_are_refused(loaders, path, tmp_path):
    model = Stacked()
    with pytest.raises(KeyMismatch):
        loader(loaders, path, signer=encode_public(kit.RIVAL.public)).load_weights(model, ModelConfig())
    assert refuses_to_run(model)
    with pytest.raises(IntegrityError, match="older"):
        loader(loaders, path, min_version=4).load_weights(model, ModelConfig())
    (tmp_path / "new").write_bytes(kit.sealed_bytes(("m.safetensors", save(TENSORS)), version=4))
    state = str(tmp_path / "state")
    loader(loaders, tmp_path / "new", state=state).load_weights(model, ModelConfig())
    with pytest.raises(IntegrityError, match="older"):
        loader(loaders, path, state=state).load_weights(Stacked(), ModelConfig())


def test_without_a_key_in_the_environment_the_variable_is_named(loaders, path, monkeypatch):
    monkeypatch.delenv("MIBAO_IDENTITY")
    with pytest.raises(InputError, match=r"\$MIBAO_IDENTITY"):
        loader(loaders, path).load_weights(Stacked(), ModelConfig())
    monkeypatch.setenv("OTHER", key_text.encode_plain(kit.ALICE))
    loader(loaders, path, identity="env:OTHER").load_weights(Stacked(), ModelConfig())


def test_who_opens_is_named_as_on_the_command_line_and_a_key_itself_is_not_repeated(loaders, path, tmp_path):
    (tmp_path / "alice.key").write_text(f"# a key\n{key_text.encode_plain(kit.ALICE)}\n")
    loader(loaders, path, identity=str(tmp_path / "alice.key")).load_weights(Stacked(), ModelConfig())
    with pytest.raises(InputError, match=r"^expected the name of a key file, got the text of a private key$"):
        loader(loaders, path, identity=key_text.encode_plain(kit.ALICE)).load_weights(Stacked(), ModelConfig())


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"path": "m"},
        options("m", key="alice.key"),
        options("m", min_version="3"),
        options(3) | {"path": 3},
        None,
    ],
)
def test_options_that_are_unknown_absent_or_of_another_type_are_refused(given):
    with pytest.raises(InputError, match="model_loader_extra_config"):
        vllm_loader.read_options(given)
