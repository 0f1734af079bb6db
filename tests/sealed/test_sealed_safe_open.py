"""What reads ``safetensors.safe_open`` reads a sealed model the same way."""

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open as plain_open

import sealed_kit as kit
from mibao import sealed
from mibao.errors import InputError, IntegrityError, MissingExtra
from mibao.sealed import reading

KEYS = {"identity": kit.ALICE, "signer": kit.VENDOR.public}
TENSORS = {
    "b": torch.arange(2400.0).reshape(40, 60),
    "a": torch.zeros(3),
    "scalar": torch.tensor(1.5),
    "c": torch.ones(2, 2, dtype=torch.bfloat16),
    "none": torch.zeros(0, 5),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("safe_open")
    safetensors.torch.save_file(TENSORS, folder / "m.safetensors", metadata={"format": "pt"})
    data = kit.sealed_bytes(("m.safetensors", (folder / "m.safetensors").read_bytes()))
    (folder / "m.mibao").write_bytes(data)
    return folder / "m.safetensors", folder / "m.mibao"


@pytest.fixture(params=["pt", "np"])
def both(request, paths):
    plain, path = paths
    with plain_open(plain, request.param) as theirs, sealed.safe_open(path, request.param, **KEYS) as ours:
        yield theirs, ours


def same(found, expected):
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    return found.tolist() == expected.tolist()


def test_names_metadata_and_tensors_are_those_of_the_plain_file(both):
    theirs, ours = both
    assert ours.keys() == theirs.keys()
    assert ours.offset_keys() == theirs.offset_keys()
    assert ours.metadata() == theirs.metadata()
    for name in ("a", "b", "scalar", "none"):
        assert same(ours.get_tensor(name), theirs.get_tensor(name))


@pytest.mark.parametrize(
    "index",
    [
        0, -1, slice(1, 3), slice(None, None, 7), slice(-3, -1), slice(3, 1), slice(1, 1000), ...,
        (slice(1, 3), slice(None, None, 2)), (..., 1), (1, 2), (slice(None), slice(5, 9)), (-2, slice(0, 4)),
    ],
)  # fmt: skip
def test_an_index_takes_what_it_takes_of_the_whole_tensor(both, index):
    theirs, ours = both  # whose own slices raise OverflowError or SystemError for some of these in NumPy
    found, whole = ours.get_slice("b"), theirs.get_tensor("b")
    assert (found.get_shape(), found.get_dtype()) == ([40, 60], "F32")
    expected = whole[index]
    assert same(found[index], np.asarray(expected) if isinstance(whole, np.ndarray) else expected)


def test_a_scalar_and_an_empty_tensor_can_be_sliced_too(both):
    theirs, ours = both
    assert same(ours.get_slice("scalar")[...], theirs.get_slice("scalar")[...])
    assert ours.get_slice("none")[:].shape == (0, 5)


def test_an_index_out_of_range_is_an_index_error_as_there(both):
    with pytest.raises(IndexError):
        both[1].get_slice("b")[40]


def test_short_floats_come_in_both_frameworks(paths):
    with sealed.safe_open(paths[1], "np", **KEYS) as file:
        assert file.get_tensor("c").astype(float).tolist() == [[1, 1], [1, 1]]
    with sealed.safe_open(paths[1], framework="pt", **KEYS) as file:
        assert same(file.get_tensor("c"), TENSORS["c"])


def test_all_tensors_at_once(paths):
    with sealed.safe_open(paths[1], "pt", **KEYS) as file:
        found = file.get_tensors()
    assert list(found) == file.offset_keys()
    assert all(same(found[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_rows_decrypt_only_their_chunks_and_outlive_the_file(paths, framework, monkeypatch):
    touched = []
    real = reading.merkle.index_entry
    with sealed.safe_open(paths[1], framework, **KEYS) as file:
        monkeypatch.setattr(reading.merkle, "index_entry", lambda chunk: touched.append(len(chunk)) or real(chunk))
        rows = file.get_slice("b")[20:22]
    assert len(touched) == 1
    assert np.asarray(rows).tolist() == TENSORS["b"][20:22].tolist()


def test_a_closed_file_gives_nothing(paths):
    with sealed.safe_open(paths[1], "pt", **KEYS) as file:
        pass
    with pytest.raises(InputError, match="is closed"):
        file.get_tensor("a")


def test_shards_are_one_model(tmp_path):
    shards = [
        (f"{n}.safetensors", safetensors.torch.save({f"w{n}": torch.full((3,), n)}, {f"k{n}": "v"})) for n in (0, 1)
    ]
    (tmp_path / "m").write_bytes(kit.sealed_bytes(*shards))
    with sealed.safe_open(tmp_path / "m", "pt", **KEYS) as file:
        assert file.keys() == ["w0", "w1"]
        assert file.metadata() == {"k0": "v", "k1": "v"}
        assert file.get_tensor("w1").tolist() == [1, 1, 1]


def test_what_there_is_not_is_refused(paths, monkeypatch):
    with pytest.raises(InputError, match="framework: expected one of pt"):
        sealed.safe_open(paths[1], "tf", **KEYS)
    with pytest.raises(InputError, match="NumPy has only cpu"):
        sealed.safe_open(paths[1], "np", "cuda", **KEYS)
    with sealed.safe_open(paths[1], "pt", **KEYS) as file, pytest.raises(InputError, match="no tensor 'q'"):
        file.get_tensor("q")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtra):
        sealed.safe_open(paths[1], "pt", **KEYS)


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_a_plain_file_in_place_of_the_sealed_one_is_refused(paths, framework):
    with pytest.raises(InputError, match="expected a sealed model"):
        sealed.safe_open(paths[0], framework, **KEYS)


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_only_the_altered_tensor_is_refused(paths, tmp_path, framework):
    data = bytearray(paths[1].read_bytes())
    data[-20] ^= 1
    (tmp_path / "m").write_bytes(bytes(data))
    with sealed.safe_open(tmp_path / "m", framework, **KEYS) as file:
        last = [name for name in file.offset_keys() if TENSORS[name].numel()][-1]
        with pytest.raises(IntegrityError, match="was altered"):
            file.get_tensor(last)
        with pytest.raises(IntegrityError, match="was altered"):
            file.get_slice(last)[0]
        assert file.get_tensor("a").tolist() == [0, 0, 0]
