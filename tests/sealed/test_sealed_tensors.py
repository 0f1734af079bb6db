"""Every data type, odd shapes, and ten thousand tensors."""

import json

import ml_dtypes
import numpy as np
import pytest

import sealed_kit as kit
from counts import counts
from mibao import sealed
from mibao.codec.tensor_table import DTYPE_BITS
from mibao.errors import InputError


def safetensors_file(described: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """A file written by hand: NumPy lacks half of the types."""
    header, body = {}, b""
    for name, (dtype, shape, data) in described.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.fixture
def every_type():
    described = {}
    for number, (dtype, bits) in enumerate(DTYPE_BITS.items()):
        shape = [8, number + 1]
        described[dtype] = (dtype, shape, bytes([number]) * ((number + 1) * bits))
        described[f"{dtype} empty"] = (dtype, [0, 3], b"")
    return described


def test_every_data_type_of_safetensors_is_sealed_and_opens_to_the_same_bytes(every_type, tmp_path):
    plain = safetensors_file(every_type)
    data = kit.sealed_bytes(("m.safetensors", plain))
    assert kit.opened_parts(data) == [plain]
    (tmp_path / "m").write_bytes(data)
    with sealed.open_model(tmp_path / "m", identity=kit.ALICE, signer=kit.VENDOR.public) as model:
        for name, (dtype, shape, content) in every_type.items():
            tensor = model[name]
            assert (tensor.dtype, list(tensor.shape), bytes(tensor.raw())) == (dtype, shape, content)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("BF16", "bfloat16"), ("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2"), ("F8_E8M0", "float8_e8m0fnu")],
)
def test_short_floats_come_as_numpy_arrays(tmp_path, dtype, name):
    values = np.array([[1, 2], [0.5, 4]]).astype(getattr(ml_dtypes, name))
    plain = safetensors_file({"w": (dtype, [2, 2], values.tobytes())})
    (tmp_path / "m").write_bytes(kit.sealed_bytes(("m.safetensors", plain)))
    with sealed.open_model(tmp_path / "m", identity=kit.ALICE, signer=kit.VENDOR.public) as model:
        for load in (lambda: model.load_numpy()["w"], model["w"].numpy, lambda: model.rows("w", 0, 2)):
            assert load().dtype == values.dtype
            assert load().astype(float).tolist() == [[1, 2], [0.5, 4]]


def test_a_model_with_types_that_numpy_lacks_is_refused_before_it_is_decrypted(every_type, tmp_path):
    (tmp_path / "m").write_bytes(kit.sealed_bytes(("m.safetensors", safetensors_file({"w": every_type["F4"]}))))
    with (
        sealed.open_model(tmp_path / "m", identity=kit.ALICE, signer=kit.VENDOR.public) as model,
        pytest.raises(InputError, match="narrower than a byte"),
    ):
        model.load_numpy()


def test_thousands_of_tensors_open_to_the_same_bytes(tmp_path):
    many = counts(short=2_000, long=10_000)
    described = {f"layer.{number}.bias": ("F32", [3], np.full(3, number, "<f4").tobytes()) for number in range(many)}
    plain = safetensors_file(described)
    (tmp_path / "m.safetensors").write_bytes(plain)
    sealed.seal(
        tmp_path / "m.safetensors", tmp_path / "m", recipients=[kit.ALICE.public], signer=kit.VENDOR, model_id="many"
    )
    arguments = {"identity": kit.ALICE, "signer": kit.VENDOR.public}
    assert sealed.open_bytes(tmp_path / "m", **arguments) == plain
    with sealed.open_model(tmp_path / "m", **arguments) as model:
        assert len(model) == many
        assert model["layer.1999.bias"].numpy().tolist() == [1999] * 3


@pytest.mark.parametrize("content", [b"", b"{}"])
def test_a_file_that_only_claims_to_be_safetensors_is_refused_and_nothing_written(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="safetensors"):
        sealed.seal(
            tmp_path / "m.safetensors", tmp_path / "m", recipients=[kit.ALICE.public], signer=kit.VENDOR, model_id="t"
        )
    assert not (tmp_path / "m").exists()


def test_a_model_without_tensors_is_a_model(tmp_path):
    plain = safetensors_file({})
    assert kit.opened_parts(kit.sealed_bytes(("m.safetensors", plain))) == [plain]
