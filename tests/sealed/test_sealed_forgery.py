"""The licensee's forgery, tried through every loader, each from a file, from a web server and from S3.

A recipient knows the data key, so it can find another ciphertext with the same GCM tag, which any loader that relies
on the tag would run as the vendor's. Each loader here must see that the vendor did not sign it.
"""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

import sealed_kit as kit
from aws_server import aws_server
from mibao import sealed
from mibao.crypto import key_text
from mibao.errors import IntegrityError
from mibao.sealed import aws, torch_tensors, vllm_loader
from tls_server import Authority, range_server

KEYS = {"identity": kit.ALICE, "signer": kit.VENDOR.public}
WEIGHT = torch.arange(64 * 64.0).reshape(64, 64)  # four chunks
ALTERED = r"^data: chunk \d+ of (tensor|file) '[\w./]+' was altered"

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("authority"))
    with range_server(b"", authority.context()) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        yield server


@pytest.fixture(scope="module")
def bucket():
    with aws_server():
        client = aws.aws_client("s3")
        client.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield client


@pytest.fixture(params=["file", "https", "s3"])
def put(request, tmp_path):
    """Lays a sealed model where readers find it, for its path or address."""

    def to_file(data: bytes) -> str:
        (tmp_path / "m.mibao").write_bytes(data)
        return str(tmp_path / "m.mibao")

    def to_web(data: bytes) -> str:
        server = request.getfixturevalue("web")
        server.data = data
        return server.url

    def to_s3(data: bytes) -> str:
        request.getfixturevalue("bucket").put_object(Bucket="models", Key="m.mibao", Body=data)
        return "s3://models/m.mibao"

    return {"file": to_file, "https": to_web, "s3": to_s3}[request.param]


@pytest.fixture
def forged(put):
    data = kit.sealed_bytes(("m.safetensors", save({"other": torch.ones(8), "weight": WEIGHT})))
    return put(kit.forged(data, 0, 2))


def by_model(load):
    def opened(path):
        with sealed.open_model(path, **KEYS) as model:
            load(model)

    return opened


def by_staging(path):
    with sealed.open_model(path, **KEYS) as model:
        wanted = torch_tensors.wanted_tensors(model.opened, {})
        places = [(each, torch.empty(each.nbytes, dtype=torch.uint8)) for each in wanted]
        torch_tensors.fill_staged(model.opened, places, staging_bytes=1 << 13)


def by_safe_open(framework, take):
    def load(path):
        with sealed.safe_open(path, framework, **KEYS) as file:
            take(file)

    return load


LOADERS = {
    "load_numpy": by_model(lambda model: model.load_numpy()),
    "lazy tensor": by_model(lambda model: model["weight"].numpy()),
    "raw": by_model(lambda model: model["weight"].raw()),
    "rows": by_model(lambda model: model.rows("weight", 20, 33)),
    "open_bytes": lambda path: sealed.open_bytes(path, **KEYS),
    "open_sealed, checked only": lambda path: sealed.open_sealed(path, None, **KEYS),
    "load_torch": lambda path: sealed.load_torch(path, **KEYS),
    "load_torch, rows of a slice": lambda path: sealed.load_torch(path, **KEYS, slices={"weight": (0, 20, 33)}),
    "load_torch, columns of a slice": lambda path: sealed.load_torch(path, **KEYS, slices={"weight": (1, 60, 64)}),
    "staging": by_staging,
    **{
        f"safe_open {framework}, {name}": by_safe_open(framework, take)
        for framework in ("pt", "np")
        for name, take in {
            "get_tensor": lambda file: file.get_tensor("weight"),
            "get_tensors": lambda file: file.get_tensors(),
            "get_slice": lambda file: file.get_slice("weight")[20:33],
            "get_slice of columns": lambda file: file.get_slice("weight")[..., -1],
        }.items()
    },
}


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_forged_weights_are_refused(forged, loader):
    with pytest.raises(IntegrityError, match=r"^data: chunk 1 of tensor 'weight' was altered"):
        loader(forged)


def test_forged_weights_are_not_written_to_a_file(forged, tmp_path):
    with pytest.raises(IntegrityError, match=r"^data: chunk 1 of tensor 'weight' was altered"):
        sealed.open_sealed(forged, tmp_path / "out", **KEYS)
    assert {each.name for each in tmp_path.iterdir()} <= {"m.mibao"}


def test_forged_weights_are_found_without_a_key(forged):
    with pytest.raises(IntegrityError, match=r"^data: chunk 2 was altered"):
        sealed.verify(forged, signer=kit.VENDOR.public)


def test_forged_weights_do_not_reach_a_module(forged):
    module = torch.nn.Linear(64, 64, bias=False)
    module.register_buffer("other", torch.ones(8))
    with pytest.raises(IntegrityError, match=ALTERED):
        sealed.load_into(module, forged, **KEYS)
    assert not module.weight.any()
    with pytest.raises(IntegrityError, match="refuses to run"):
        module(torch.ones(1, 64))


def test_forged_weights_do_not_reach_vllm(forged, monkeypatch):
    class Model(torch.nn.Linear):
        def load_weights(self, weights):
            for name, tensor in weights:
                if name == "weight":
                    self.weight.copy_(tensor)
            return {"weight"}

    monkeypatch.setenv("MIBAO_IDENTITY", key_text.encode_plain(kit.ALICE))
    model = Model(64, 64, bias=False)
    options = vllm_loader.LoaderOptions(
        path=str(forged), signer=kit.VENDOR.public, min_version=None, state=None, identity="env:MIBAO_IDENTITY"
    )
    with pytest.raises(IntegrityError, match=ALTERED):
        vllm_loader.load_weights(model, options)
    assert not model.weight.any()


def folder_bytes(folder):
    """A folder's files sealed under the key that the forger knows: shards first, then the others."""
    shards = [(each.name, each.read_bytes()) for each in sorted(folder.glob("*.safetensors"))]
    sides = [(each.name, each.read_bytes()) for each in sorted(folder.iterdir()) if each.suffix != ".safetensors"]
    return kit.sealed_bytes(*shards, side_files=tuple(sides)), [name for name, _ in [*shards, *sides]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    GenerationConfig(eos_token_id=3, max_new_tokens=40).save_pretrained(folder)
    vocabulary = {f"word{number}": number for number in range(64)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "word0"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    return folder


def forged_at(folder, name):
    data, names = folder_bytes(folder)
    return kit.forged(data, names.index(name), 0)


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (AutoModelForCausalLM, "model.safetensors"),
        (AutoModelForCausalLM, "config.json"),
        (AutoModelForCausalLM, "generation_config.json"),
        (AutoConfig, "config.json"),
        (GenerationConfig, "generation_config.json"),
        (AutoTokenizer, "tokenizer.json"),
    ],
)
def test_no_part_of_a_checkpoint_can_be_forged(checkpoint, put, cls, name):
    assert sealed.from_sealed(cls, put(folder_bytes(checkpoint)[0]), **KEYS) is not None
    with pytest.raises(IntegrityError, match=ALTERED):
        sealed.from_sealed(cls, put(forged_at(checkpoint, name)), **KEYS)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_no_part_of_an_adapter_can_be_forged(checkpoint, put, tmp_path, name):
    base = LlamaForCausalLM.from_pretrained(checkpoint)
    folder = tmp_path / "adapter"
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(weights, folder / "adapter_model.safetensors")
    model = LlamaForCausalLM.from_pretrained(checkpoint)
    before = {key: each.clone() for key, each in model.state_dict().items()}
    with pytest.raises(IntegrityError, match=ALTERED):
        sealed.adapter_from_sealed(model, put(forged_at(folder, name)), **KEYS)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[key], each) for key, each in model.state_dict().items())
