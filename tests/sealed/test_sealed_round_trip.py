"""What goes in comes out, byte for byte, and nothing of it shows on the way."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

import sealed_kit as kit
from mibao import sealed
from mibao.crypto.keys import RecipientSuite, SignerSuite
from mibao.errors import InputError
from mibao.sealed import chunks as chunking
from mibao.sealed import opening
from mibao.sealed.source import MemorySource

shapes = st.lists(st.integers(0, 40), max_size=3).map(tuple)
dictionaries = st.dictionaries(
    st.text(min_size=1, max_size=6).filter(lambda name: name != "__metadata__"),
    st.tuples(shapes, st.sampled_from(["<f4", "u1", "<i8", "<f2"])),
    max_size=5,
)


@settings(max_examples=25, deadline=None)
@given(dictionaries, st.booleans())
def test_a_safetensors_file_opens_to_the_same_bytes(described, hybrid):
    plain = save({name: np.full(shape, 3, kind) for name, (shape, kind) in described.items()})
    by = kit.signer(9, SignerSuite.ED25519_MLDSA65 if hybrid else SignerSuite.ED25519)
    to = kit.recipient(8, RecipientSuite.MLKEM768_X25519 if hybrid else RecipientSuite.X25519)
    data = kit.sealed_bytes(("m.safetensors", plain), to=(kit.ALICE, to), by=by)
    assert kit.opened_parts(data, identity=to, pinned=by.public) == [plain]
    assert kit.opened_parts(data, identity=kit.ALICE, pinned=by.public) == [plain]
    kit.verify(data, pinned=by.public)


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=3 * kit.CHUNK_BYTES), st.sampled_from(["model.gguf", "model.onnx", "weights"]))
def test_any_other_file_opens_to_the_same_bytes(content, name):
    assert kit.opened_parts(kit.sealed_bytes((name, content))) == [content]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20_000), max_size=6), st.sampled_from([4096, 8192]))
def test_chunks_cover_all_segments_and_cross_none(lengths, chunk_bytes):
    cut = chunking.PartChunks(0, lengths, chunk_bytes=chunk_bytes)
    filled = [length for length in lengths if length]
    per_segment = [sum(each.length for each in cut if each.segment == number) for number in range(len(filled))]
    assert per_segment == filled
    assert [each.begin for each in cut] == [sum(each.length for each in list(cut)[:at]) for at in range(len(cut))]
    assert all(1 <= each.length <= chunk_bytes for each in cut)
    assert len({each.nonce for each in cut}) == len(cut)


def test_a_checkpoint_of_several_shards_and_side_files_opens_to_the_same_bytes():
    first, second = save(kit.tensors(1)), save({"z": np.arange(9000, dtype="<i4")})
    side = (("config.json", b"{}"), ("sub/vocab.txt", b""))
    data = kit.sealed_bytes(("a.safetensors", first), ("b.safetensors", second), side_files=side)
    assert kit.opened_parts(data) == [first, second, b"{}", b""]
    assert kit.verify(data) == 8 + 9 + 1


def test_nothing_of_the_model_shows_in_the_sealed_file():
    plain = save(kit.tensors(), metadata={"format": "pt"})
    data = kit.sealed_bytes(("secret-name.safetensors", plain))
    for shown in (b"layer", b"bias", b"F32", b"shape", b"secret-name", plain[-64:], plain[5000:5032]):
        assert shown not in data
    for hashed in (hashlib.sha256(plain).digest(), hashlib.sha256(plain[-9696:]).digest()):
        assert hashed not in data


def test_no_key_and_nonce_meet_twice_over_the_shards_of_a_checkpoint():
    shards = [(f"{number}.safetensors", save(kit.tensors(number))) for number in range(3)]
    source = MemorySource(kit.sealed_bytes(*shards))
    opened = opening.open_file(source, opening.read_verified(source, signer=kit.VENDOR.public), kit.ALICE)
    pairs = set()
    for each in opened.parts:
        # Ciphers hide their keys: equal keys show as equal keystreams.
        stream = each.cipher.seal(bytes(12), bytes(16), b"")
        pairs |= {(stream, chunk.nonce) for chunk in each.chunks}
    pairs.add((opened.keys.table_cipher().seal(bytes(12), bytes(16), b""), bytes(12)))
    assert len(pairs) == sum(len(each.chunks) for each in opened.parts) + 1


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "checkpoint"
    (source / "onnx").mkdir(parents=True)
    save_file(kit.tensors(1), source / "model-00001-of-00002.safetensors")
    save_file({"head": np.arange(6.0)}, source / "model-00002-of-00002.safetensors")
    names = dict.fromkeys(kit.tensors(1), "model-00001-of-00002.safetensors")
    index = {"weight_map": names | {"head": "model-00002-of-00002.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    (source / "config.json").write_text('{"model_type": "tiny"}')
    (source / "onnx" / "vocab.txt").write_text("a\nb\n")
    (source / ".cache").write_text("left out")
    return source


def test_a_folder_opens_to_the_same_files(folder, tmp_path):
    report = sealed.seal(
        folder, tmp_path / "m.mibao", recipients=[kit.ALICE.public], signer=kit.VENDOR, model_id="acme/tiny"
    )
    assert (report.shards, report.side_files) == (2, 3)
    sealed.open_sealed(tmp_path / "m.mibao", tmp_path / "out", identity=kit.ALICE, signer=kit.VENDOR.public)
    files = {each.relative_to(folder): each.read_bytes() for each in folder.rglob("[!.]*") if each.is_file()}
    found = tmp_path / "out"
    assert files == {each.relative_to(found): each.read_bytes() for each in found.rglob("*") if each.is_file()}


def test_an_index_that_names_a_tensor_its_shard_lacks_is_refused(folder, tmp_path):
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="names a tensor that its shard does not hold"):
        sealed.seal(folder, tmp_path / "m.mibao", recipients=[kit.ALICE.public], signer=kit.VENDOR, model_id="t")
    assert not (tmp_path / "m.mibao").exists()


def test_the_same_model_sealed_twice_shares_no_key(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"\0" * 64)
    ciphertexts = set()
    for name in ("one", "two"):
        sealed.seal(
            tmp_path / "m.gguf", tmp_path / name, recipients=[kit.ALICE.public], signer=kit.VENDOR, model_id="t"
        )
        ciphertexts.add((tmp_path / name).read_bytes()[-80:-16])
    assert len(ciphertexts) == 2


def test_an_interrupted_seal_leaves_nothing_and_draws_a_new_key_next_time(tmp_path, monkeypatch):
    file_keys = []
    real = sealed.store.seal_to
    monkeypatch.setattr(sealed.store, "seal_to", lambda *a, **k: file_keys.append(k["file_key"]) or real(*a, **k))
    source, output = tmp_path / "m.gguf", tmp_path / "m.mibao"
    arguments = {"recipients": [kit.ALICE.public], "signer": kit.VENDOR, "model_id": "t"}
    source.write_bytes(b"first")
    with monkeypatch.context() as crash:
        crash.setattr(sealed.sealing.manifests, "sign", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sealed.seal(source, output, **arguments)
    assert [each.name for each in tmp_path.iterdir()] == ["m.gguf"]
    source.write_bytes(b"other")
    sealed.seal(source, output, **arguments)
    assert len(file_keys) == len(set(file_keys)) == 2


def test_opened_files_are_for_their_owner_alone(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"weights")
    sealed.seal(tmp_path / "m.gguf", tmp_path / "m", recipients=[kit.ALICE.public], signer=kit.VENDOR, model_id="t")
    sealed.open_sealed(tmp_path / "m", tmp_path / "out", identity=kit.ALICE, signer=kit.VENDOR.public)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


def test_verify_says_what_it_could_not_check(tmp_path):
    (tmp_path / "m").write_bytes(kit.sealed_bytes())
    report = sealed.verify(tmp_path / "m", signer=kit.VENDOR.public)
    assert report.unchecked == ("the list of recipients", "the contents of the encrypted table")
    assert (report.model_id, report.version, report.chunks) == ("acme/tiny", 3, 8)


def test_inspect_shows_public_facts_without_a_key_and_tensors_with_one(tmp_path):
    (tmp_path / "m").write_bytes(kit.sealed_bytes(to=(kit.ALICE, kit.recipient(5, RecipientSuite.MLKEM768_X25519))))
    facts = sealed.inspect(tmp_path / "m")
    assert facts.tensors is None
    assert [kind for kind, _ in facts.recipients] == ["x25519", "mlkem768-x25519"]
    assert not facts.post_quantum
    shown = sealed.inspect(tmp_path / "m", identity=kit.ALICE).tensors
    assert {each.name: each.shape for each in shown["model.safetensors"]} == {
        name: tensor.shape for name, tensor in kit.tensors().items()
    }


def test_the_overhead_is_under_a_thousandth(tmp_path):
    (tmp_path / "m.gguf").write_bytes(bytes(64 << 20))
    report = sealed.seal(
        tmp_path / "m.gguf", tmp_path / "m", recipients=[kit.ALICE.public], signer=kit.VENDOR, model_id="t"
    )
    assert report.sealed_bytes < 1.001 * report.plaintext_bytes
