"""Tensors of a sealed model in memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import sealed_kit as kit
from mibao import sealed
from mibao.errors import InputError, IntegrityError, MissingExtra
from mibao.sealed import numpy_types, reading


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("sealed") / "m.mibao"
    path.write_bytes(kit.sealed_bytes())
    return path


@pytest.fixture
def model(path):
    with sealed.open_model(path, identity=kit.ALICE, signer=kit.VENDOR.public) as model:
        yield model


def same(found, expected):
    return found.dtype == expected.dtype and found.shape == expected.shape and np.array_equal(found, expected)


def test_every_loader_gives_the_tensors_that_were_sealed(model):
    loaded, expected = model.load_numpy(), kit.tensors()
    assert loaded.keys() == model.keys() == expected.keys()
    for name, tensor in expected.items():
        assert same(loaded[name], tensor)
        assert same(model[name].numpy(), tensor)
        assert (model[name].shape, model[name].nbytes) == (tensor.shape, tensor.nbytes)


@settings(deadline=None, max_examples=40)
@given(bounds=st.tuples(st.integers(0, 48), st.integers(0, 48)).map(sorted))
def test_rows_are_those_of_the_tensor(path, bounds):
    with sealed.open_model(path, identity=kit.ALICE, signer=kit.VENDOR.public) as model:
        start, stop = bounds
        assert same(model.rows("layer.weight", start, stop), kit.tensors()["layer.weight"][start:stop])


def test_rows_decrypt_only_the_chunks_they_overlap(model, monkeypatch):
    touched = []
    real = reading.merkle.index_entry
    monkeypatch.setattr(reading.merkle, "index_entry", lambda chunk: touched.append(len(chunk)) or real(chunk))
    model.rows("layer.weight", 0, 20)  # 20 rows of 200 bytes end within the first chunk of 4096
    assert touched == [4096 + 16]


@pytest.mark.parametrize("bounds", [(-1, 3), (4, 3), (0, 49)])
def test_rows_outside_the_tensor_are_refused(model, bounds):
    with pytest.raises(InputError, match="not within a tensor"):
        model.rows("layer.weight", *bounds)


def test_a_scalar_has_no_rows(model):
    with pytest.raises(InputError, match="not within a tensor"):
        model.rows("scalar", 0, 0)


def test_a_closed_model_decrypts_nothing(path):
    model = sealed.open_model(path, identity=kit.ALICE, signer=kit.VENDOR.public)
    model.close()
    with pytest.raises(InputError, match="is closed"):
        model["bias"].numpy()
    with pytest.raises(InputError, match="is closed"):
        model.load_numpy()


def test_two_shards_with_a_tensor_of_one_name_are_refused(tmp_path):
    shards = [(f"{number}.safetensors", save({"w": np.zeros(3)})) for number in range(2)]
    (tmp_path / "m").write_bytes(kit.sealed_bytes(*shards))
    with pytest.raises(InputError, match="two shards hold a tensor of the same name"):
        sealed.open_model(tmp_path / "m", identity=kit.ALICE, signer=kit.VENDOR.public)


def test_types_narrower_than_a_byte_have_no_numpy_type():
    with pytest.raises(InputError, match="narrower than a byte"):
        numpy_types.numpy_dtype("F4")


def test_bfloat16_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(MissingExtra, match="ml-dtypes"):
        numpy_types.numpy_dtype("BF16")


def test_a_fault_in_the_last_shard_wipes_what_the_first_ones_gave(tmp_path, monkeypatch):
    shards = [(f"{number}.safetensors", save({f"w{number}": np.ones(2000)})) for number in range(2)]
    data = bytearray(kit.sealed_bytes(*shards))
    data[-1] ^= 1
    (tmp_path / "m").write_bytes(data)
    with sealed.open_model(tmp_path / "m", identity=kit.ALICE, signer=kit.VENDOR.public) as model:
        handed: list[memoryview] = []
        real = model.new_memory
        monkeypatch.setattr(model, "new_memory", lambda count: handed.append(real(count)) or handed[-1])
        with pytest.raises(IntegrityError, match=r"^data: chunk \d of tensor 'w1' was altered$"):
            model.load_numpy()
        assert [len(each) for each in handed] == [16000, 16000]
        assert not any(any(each) for each in handed)
        handed.clear()
