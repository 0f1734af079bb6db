"""Sealed models as PyTorch tensors and in PyTorch modules."""

import gc
import json
import sys

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sealed_kit as kit
from mibao import sealed
from mibao.codec.tensor_table import DTYPE_BITS
from mibao.errors import InputError, IntegrityError, KeyMismatch, MissingExtra
from mibao.sealed import memory, reading, torch_tensors

KEYS = {"identity": kit.ALICE, "signer": kit.VENDOR.public}
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
NARROW = {"F4", "F6_E2M3", "F6_E3M2"}


def written(folder, *shards, **arguments):
    path = folder / "m.mibao"
    path.write_bytes(kit.sealed_bytes(*shards, **arguments))
    return path


def same(found, expected):
    as_bytes = [each.contiguous().reshape(-1).view(torch.uint8) for each in (found, expected)]
    return found.dtype == expected.dtype and found.shape == expected.shape and torch.equal(*as_bytes)


def some_tensors():
    draw = torch.Generator().manual_seed(5)
    return {
        "weight": torch.randn(40, 3, 50, generator=draw),
        "half": torch.randn(70, 33, generator=draw).bfloat16(),
        "mask": torch.tensor([True, False, True]),
        "steps": torch.tensor(7),
        "none": torch.zeros(0, 4),
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    plain = some_tensors()
    first = {name: plain[name] for name in ("weight", "mask", "none")}
    second = {name: plain[name] for name in ("half", "steps")}
    shards = [(f"{n}.safetensors", safetensors.torch.save(each)) for n, each in enumerate((first, second))]
    return written(tmp_path_factory.mktemp("sealed"), *shards)


def by_hand(described):
    """A safetensors file whose tensors stand in the order given, aligned or not."""
    header, body = {}, b""
    for name, (dtype, shape, data) in described.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_tensors_of_all_shards_come_as_they_were_sealed(path):
    found = sealed.load_torch(path, **KEYS)
    assert found.keys() == some_tensors().keys()
    assert all(same(found[name], tensor) for name, tensor in some_tensors().items())


def test_tensors_are_aligned_views_of_one_buffer_that_can_be_written_to(path):
    found = sealed.load_torch(path, **KEYS)
    storages = {tensor.untyped_storage().data_ptr() for tensor in found.values() if tensor.numel()}
    assert len(storages) == 1
    assert all(tensor.data_ptr() % torch_tensors.ALIGNMENT == 0 for tensor in found.values())
    found["weight"].zero_()
    assert same(found["half"], some_tensors()["half"])


def test_the_buffer_is_wiped_with_the_last_tensor(path, monkeypatch):
    wiped = []
    real = memory.SecretPages._wipe
    monkeypatch.setattr(memory.SecretPages, "_wipe", lambda pages: wiped.append(len(pages)) or real(pages))
    found = sealed.load_torch(path, **KEYS)
    last = found["half"]
    del found
    gc.collect()
    size = last.untyped_storage().nbytes()
    assert size not in wiped
    del last
    gc.collect()
    assert size in wiped


def test_every_data_type_that_pytorch_has_comes_with_its_bytes_wherever_it_stands(tmp_path):
    described = {"odd": ("U8", [3], b"odd")}  # everything behind it is misaligned in the file
    for number, (dtype, bits) in enumerate(DTYPE_BITS.items()):
        if dtype not in NARROW:
            described[dtype] = (dtype, [2, 3], bytes([number % 2]) * (6 * bits // 8))
            described[f"{dtype} scalar"] = (dtype, [], bytes([1]) * (bits // 8))
    path = written(tmp_path, ("m.safetensors", by_hand(described)))
    found = sealed.load_torch(path, **KEYS)
    for name, (dtype, shape, data) in described.items():
        assert found[name].dtype == torch_tensors.torch_dtype(dtype)
        assert list(found[name].shape) == shape
        assert bytes(found[name].reshape(-1).view(torch.uint8).numpy()) == data


@pytest.mark.parametrize("dtype", sorted(NARROW))
def test_a_type_narrower_than_a_byte_is_refused_before_anything_is_decrypted(tmp_path, dtype, monkeypatch):
    data = by_hand({"w": (dtype, [8, 2], bytes(2 * DTYPE_BITS[dtype]))})
    path = written(tmp_path, ("m.safetensors", data))
    monkeypatch.setattr(reading, "decrypt_pieces", None)
    with pytest.raises(InputError, match=f"PyTorch has no type for {dtype}"):
        sealed.load_torch(path, **KEYS)


def test_a_model_without_tensors_loads_as_no_tensors(tmp_path):
    assert sealed.load_torch(written(tmp_path, ("m.safetensors", by_hand({}))), **KEYS) == {}


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_slice_is_that_slice_of_the_tensor(path, data):
    name = data.draw(st.sampled_from(["weight", "half", "mask", "none"]))
    whole = some_tensors()[name]
    dimension = data.draw(st.integers(0, whole.dim() - 1))
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, whole.shape[dimension])] * 2)))
    found = sealed.load_torch(path, **KEYS, slices={name: (dimension, start, stop)})
    assert same(found[name], whole.narrow(dimension, start, stop - start))
    assert all(same(found[other], tensor) for other, tensor in some_tensors().items() if other != name)


def test_a_slice_of_rows_reads_only_the_chunks_it_overlaps(tmp_path, monkeypatch):
    path = written(
        tmp_path, ("m.safetensors", safetensors.torch.save({"w": torch.arange(64 * 256.0).reshape(64, 256)}))
    )
    touched = []
    real = reading.merkle.index_entry
    monkeypatch.setattr(reading.merkle, "index_entry", lambda chunk: touched.append(len(chunk)) or real(chunk))
    found = sealed.load_torch(path, **KEYS, slices={"w": (0, 32, 48)})  # 1 KiB a row, 16 of 64 chunks' worth
    assert found["w"][0, 0] == 32 * 256
    assert len(touched) == 4


def test_columns_of_a_large_tensor_are_taken_some_rows_at_a_time(path, monkeypatch):
    monkeypatch.setattr(torch_tensors, "SCRATCH_BYTES", 500)
    found = sealed.load_torch(path, **KEYS, slices={"half": (1, 5, 20), "weight": (2, 0, 1)})
    assert same(found["half"], some_tensors()["half"][:, 5:20])
    assert same(found["weight"], some_tensors()["weight"][:, :, :1])


@pytest.mark.parametrize("wanted", [(3, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 2, 1), (0, 0, 41)])
def test_a_slice_outside_its_tensor_is_refused(path, wanted):
    with pytest.raises(InputError, match="not within a tensor of shape"):
        sealed.load_torch(path, **KEYS, slices={"weight": wanted})


def test_a_slice_of_no_tensor_is_refused(path):
    with pytest.raises(InputError, match="no tensor 'wieght'"):
        sealed.load_torch(path, **KEYS, slices={"wieght": (0, 0, 1)})


@pytest.mark.parametrize("staging_bytes", [1, 5_000, 1 << 20])
def test_what_goes_by_way_of_staging_buffers_arrives_whole(path, staging_bytes):
    with sealed.open_model(path, **KEYS) as model:
        wanted = torch_tensors.wanted_tensors(model.opened, {"weight": (0, 7, 30)})
        places = [(each, torch.empty(each.nbytes, dtype=torch.uint8)) for each in wanted if each.nbytes]
        torch_tensors.fill_staged(model.opened, places, staging_bytes=staging_bytes)
    for each, target in places:
        expected = some_tensors()[each.spec.name]
        expected = expected[7:30] if each.cut else expected
        assert torch.equal(target, expected.contiguous().reshape(-1).view(torch.uint8))


@pytest.mark.parametrize("device", DEVICES)
def test_tensors_come_on_each_device_of_this_machine(path, device):
    found = sealed.load_torch(path, **KEYS, device=device, slices={"half": (1, 3, 9)})
    expected = some_tensors() | {"half": some_tensors()["half"][:, 3:9]}
    assert {tensor.device.type for tensor in found.values()} == {device}
    assert all(same(found[name].cpu(), tensor) for name, tensor in expected.items())


def test_without_pytorch_the_extra_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"extra 'torch'"):
        sealed.load_torch(path, **KEYS)


def test_a_device_without_memory_is_refused(path):
    with pytest.raises(InputError, match="got meta"):
        sealed.load_torch(path, **KEYS, device="meta")


# Modules


class Tied(torch.nn.Module):
    """A linear layer and its transpose of one weight, a buffer, and a layer inside."""

    def __init__(self, width=8):
        super().__init__()
        self.encode = torch.nn.Linear(width, 70, bias=False)
        self.decode = torch.nn.Linear(width, 70, bias=False)
        self.decode.weight = self.encode.weight
        self.norm = torch.nn.LayerNorm(70)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        return self.norm(self.encode(x)) @ self.decode.weight


def model_of(folder, tensors, name="m.mibao"):
    path = folder / name
    path.write_bytes(kit.sealed_bytes(("m.safetensors", safetensors.torch.save(tensors))))
    return path


@pytest.fixture
def trained():
    torch.manual_seed(3)
    module = Tied()
    module.steps += 41
    return module


def tensors_of(module, *, tied):
    found = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    return found if tied else {name: tensor for name, tensor in found.items() if name != "decode.weight"}


@pytest.mark.parametrize("tied", [True, False])
def test_a_module_takes_a_model_into_the_memory_it_has(tmp_path, trained, tied):
    module = Tied()
    before = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    sealed.load_into(module, model_of(tmp_path, tensors_of(trained, tied=tied)), **KEYS)
    assert {name: tensor.data_ptr() for name, tensor in module.state_dict().items()} == before
    x = torch.ones(2, 8)
    assert torch.equal(module(x), trained(x))
    assert module.steps == 41
    assert module.encode.weight.requires_grad
    assert "forward" not in vars(module)


@pytest.mark.parametrize("device", DEVICES)
def test_a_module_is_loaded_where_it_is(tmp_path, trained, device):
    module = Tied().to(device)
    sealed.load_into(module, model_of(tmp_path, tensors_of(trained, tied=True)), **KEYS)
    assert module.encode.weight.device.type == device
    assert all(same(tensor.cpu(), trained.state_dict()[name]) for name, tensor in module.state_dict().items())


def test_a_parameter_in_another_memory_layout_is_filled_too(tmp_path):
    weight = torch.arange(12.0).reshape(3, 4)
    module = torch.nn.Linear(4, 3, bias=False)
    module.weight = torch.nn.Parameter(torch.zeros(4, 3).t())
    sealed.load_into(module, model_of(tmp_path, {"weight": weight}), **KEYS)
    assert torch.equal(module.weight, weight)


def test_each_rank_takes_its_slices(tmp_path):
    weight, bias = torch.randn(12, 10), torch.randn(12)
    path = model_of(tmp_path, {"weight": weight, "bias": bias})
    for rank in range(2):
        rows, columns = torch.nn.Linear(10, 6), torch.nn.Linear(5, 12)
        cut = (0, 6 * rank, 6 * rank + 6)
        sealed.load_into(rows, path, **KEYS, slices={"weight": cut, "bias": cut})
        sealed.load_into(columns, path, **KEYS, slices={"weight": (1, 5 * rank, 5 * rank + 5)})
        assert torch.equal(rows.weight, weight.chunk(2)[rank])
        assert torch.equal(rows.bias, bias.chunk(2)[rank])
        assert torch.equal(columns.weight, weight.chunk(2, dim=1)[rank])


def refuses_to_run(module):
    x = torch.ones(2, 8)
    for run in (lambda: module(x), lambda: module.forward(x), lambda: module.encode(x), lambda: module.norm.forward(x)):
        with pytest.raises(IntegrityError, match=r"refuses to run"):
            run()
    return True


def _shape(tensors):
    tensors["norm.bias"] = torch.zeros(71)


def _dtype(tensors):
    tensors["encode.weight"] = tensors["encode.weight"].half()


def _missing(tensors):
    del tensors["norm.bias"]


def _unknown(tensors):
    tensors["norm.extra"] = torch.zeros(1)


def _two_contents(tensors):
    tensors["decode.weight"] = tensors["encode.weight"] + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_shape, r"'norm.bias': expected shape \(70,\), the file's is \(71,\)"),
        (_dtype, r"'encode.weight': expected torch.float32, the file's is F16"),
        (_missing, r"model: has no 'norm.bias', which the module needs"),
        (_unknown, r"module: has no 'norm.extra'"),
        (_two_contents, r"the file's two differ"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_and_the_module_refuses_to_run(tmp_path, trained, change, message):
    tensors = tensors_of(trained, tied=False)
    change(tensors)
    module = Tied()
    with pytest.raises(InputError, match=message):
        sealed.load_into(module, model_of(tmp_path, tensors), **KEYS)
    assert refuses_to_run(module)


def test_a_module_without_memory_is_refused(tmp_path, trained):
    with torch.device("meta"):
        module = Tied()
    with pytest.raises(InputError, match="to_empty"):
        sealed.load_into(module, model_of(tmp_path, tensors_of(trained, tied=False)), **KEYS)


def flipped(path, offset=-20):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))


def test_a_half_loaded_module_is_wiped_and_refuses_to_run_until_it_is_loaded_whole(tmp_path, trained):
    tensors = tensors_of(trained, tied=False)
    good, bad = model_of(tmp_path, tensors), model_of(tmp_path, tensors, "bad.mibao")
    flipped(bad)
    module = Tied()
    own = module.norm.forward
    module.norm.forward = own  # as accelerate's hooks do
    with pytest.raises(IntegrityError, match="was altered"):
        sealed.load_into(module, bad, **KEYS)
    assert refuses_to_run(module)
    assert not any(tensor.any() for tensor in module.state_dict().values())
    sealed.load_into(module, good, **KEYS)
    assert torch.equal(module(torch.ones(2, 8)), trained(torch.ones(2, 8)))
    assert module.norm.forward is own


def test_a_module_refuses_to_run_after_any_failure_to_open(tmp_path, trained):
    path = model_of(tmp_path, tensors_of(trained, tied=False))
    module = Tied()
    with pytest.raises(KeyMismatch):
        sealed.load_into(module, path, identity=kit.ALICE, signer=kit.RIVAL.public)
    assert refuses_to_run(module)


def test_altered_tensors_are_not_handed_out_and_what_was_decrypted_is_wiped(tmp_path, monkeypatch):
    path = model_of(tmp_path, {f"{n}": torch.ones(2048) for n in range(4)})
    flipped(path)
    buffers = []
    real = torch_tensors._buffer
    monkeypatch.setattr(torch_tensors, "_buffer", lambda *each: buffers.append(real(*each)) or buffers[-1])
    with pytest.raises(IntegrityError, match="chunk 1 of tensor '3' was altered"):
        sealed.load_torch(path, **KEYS)
    assert buffers[0].numel() == 4 * 8192
    assert not buffers[0].any()


def test_failing_while_columns_or_staging_are_filled_wipes_too(tmp_path):
    path = model_of(tmp_path, {"first": torch.ones(2048), "last": torch.ones(64, 64)})
    flipped(path)
    with sealed.open_model(path, **KEYS) as model:
        wanted = torch_tensors.wanted_tensors(model.opened, {"last": (1, 0, 8)})
        places = [(each, torch.zeros(each.nbytes, dtype=torch.uint8)) for each in wanted]
        with pytest.raises(IntegrityError):
            torch_tensors.fill(model.opened, places)
        assert not any(target.any() for _, target in places)


def test_an_older_version_is_not_loaded(path):
    with pytest.raises(IntegrityError, match="older"):
        sealed.load_torch(path, **KEYS, min_version=4)
