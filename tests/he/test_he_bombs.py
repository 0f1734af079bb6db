"""Small files that ask a compute host for gigabytes: refused at once, under a limit on memory."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from he_cases import BOTH, DATA, WEIGHTS, circuit, records_of, reframed, request, weights_of
from mibao import he
from mibao.errors import InputError, IntegrityError
from mibao.he import files
from mibao.he.envelope import Envelope, Kind, encode
from mibao.he.parameters import Parameters

LIMITED = """
import resource, sys, time
from pathlib import Path
from mibao.errors import MibaoError
from mibao.he import Server, engine_seal
import numpy, seal
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (256 << 20),) * 2)
bundle, keys, sent = (Path(name).read_bytes() for name in sys.argv[1:4])
start = time.process_time()
try:
    server = Server.from_bytes(bundle=bundle, keys=keys)
    if sent:
        server.evaluate(sent)
    print("taken")
except MibaoError as error:
    print(type(error).__name__, error)
print(time.process_time() - start)
"""


def under_a_limit(folder, bundle, keys, sent=b""):
    """What a host with 256 MiB to spare says to these files, and the seconds of processor time it took."""
    paths = [folder / name for name in ("bundle", "keys", "sent")]
    for path, data in zip(paths, (bundle, keys, sent), strict=True):
        path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, paths)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    said, seconds = done.stdout.splitlines()
    return said, float(seconds)


def off_the_ladder(ring_degree, modulus_bits, *, features=4, outputs=2):
    """A bundle that no library function writes: its parameters pass the security table and no more."""
    spec = circuit(features=features, outputs=outputs).spec.to_value()
    spec |= {"ring_degree": ring_degree, "modulus_bits": list(modulus_bits), "scale_bits": 5, "weight_scale_bits": 4}
    return encode(Envelope(kind=Kind.CLEAR_BUNDLE, header={"spec": spec}, body=bytes(8 * (features + 1) * outputs)))


@pytest.mark.parametrize("ring_degree", [2048, 4096, 8192, 32768])
@pytest.mark.parametrize("modulus_bits", [(20,), (20, 20), (20,) * 3, (50, 50, 50), (20,) * 40, (60,) * 14])
def test_parameters_that_no_circuit_is_compiled_to_are_refused(ring_degree, modulus_bits):
    with pytest.raises(IntegrityError, match="circuit: describes no possible circuit"):
        he.Circuit.from_bytes(off_the_ladder(ring_degree, modulus_bits))


def test_a_bundle_of_kilobytes_that_asks_for_gigabytes_is_refused_at_once(tmp_path):
    bundle = off_the_ladder(32768, (60, 60, 60), features=4095, outputs=1)
    assert len(bundle) < 40_000
    said, seconds = under_a_limit(tmp_path, bundle, circuit().keygen()[1].keys_bytes())
    assert said.startswith("IntegrityError circuit: describes no possible circuit")
    assert seconds < 1


def test_the_widest_weights_in_clear_are_held_unencoded(tmp_path):
    compiled = circuit(features=4096, outputs=32, max_error=1e-6)
    keys = he.generate_client(compiled.spec).server_keys()
    assert compiled.spec.parameters.ring_degree == 8192  # encoded, 16 GiB
    said, seconds = under_a_limit(tmp_path, compiled.to_bytes(), keys)
    assert said == "taken"
    assert seconds < 1


def test_a_request_whose_answer_would_be_too_large_is_refused_before_any_work(tmp_path):
    compiled = circuit(features=1, outputs=256)
    client, server = compiled.keygen()
    rows = 33 * compiled.spec.parameters.slots
    small = client.encrypt(records_of(rows=1, features=1))
    sent = reframed(small, Kind.REQUEST, header=lambda held: {**held, "rows": rows}, body=lambda body: body * 33)
    assert compiled.spec.answer_bytes(rows) > 1 << 28 >= compiled.spec.answer_bytes(rows - rows // 33)
    said, seconds = under_a_limit(tmp_path, server.bundle_bytes(), server.keys_bytes(), sent)
    assert said == f"InputError request: the answer to {rows} rows would exceed 256 MiB; send fewer at a time"
    assert seconds < 1


def test_the_sender_hears_it_first():
    spec = circuit(WEIGHTS, features=1, outputs=256).spec
    rows = 65 * spec.parameters.slots
    with pytest.raises(InputError, match="would exceed 256 MiB"):
        he.request_in_clear(spec, np.zeros((rows, 1)))
    compiled = circuit(DATA, features=1, outputs=256)
    with pytest.raises(InputError, match="would exceed 256 MiB"):
        he.generate_client(compiled.spec).encrypt(np.zeros((33 * compiled.spec.parameters.slots, 1)))


@pytest.mark.parametrize("mode", [DATA, WEIGHTS, BOTH])
def test_a_circuit_wider_than_what_is_held_at_once_answers_right(mode):
    compiled = circuit(mode, features=130, outputs=2, bound=1.0)
    client, server = compiled.keygen()
    records = records_of(features=130, bound=1.0)
    weights, bias = weights_of(features=130)
    logits = client.decrypt(server.evaluate(request(compiled.spec, client, records)))
    assert np.max(np.abs(logits - (records @ weights + bias))) <= compiled.spec.predicted_error


@pytest.mark.parametrize("weight", [1e300, -1e300, 2.0**60])
def test_a_weight_that_does_not_fit_the_modulus_is_refused(weight):
    compiled = circuit()
    keys = he.generate_client(compiled.spec).server_keys()
    bundle = reframed(
        compiled.to_bytes(), Kind.CLEAR_BUNDLE, body=lambda body: np.full(len(body) // 8, weight).tobytes()
    )
    with pytest.raises(IntegrityError, match="bundle: a weight does not fit the modulus"):
        he.Server.from_bytes(bundle=bundle, keys=keys)


def test_records_that_a_forged_range_lets_through_are_refused():
    spec = replace(circuit().spec, input_bound=1e301)
    with pytest.raises(IntegrityError, match="plaintext: refused by the library"):
        he.generate_client(spec).encrypt(np.full((1, 4), 1e300))


def test_parameters_that_the_library_refuses_are_an_error_of_ours():
    parameters = Parameters(ring_degree=32768, modulus_bits=(20,) * 40, scale_bits=5)
    with pytest.raises(IntegrityError, match="parameters: refused by the library"):
        he.engine_seal.engine_for(parameters)


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("kind", ["<f4", "<f8", "<i8"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_what_numpy_writes_is_read(tmp_path, order, kind, version):
    values = np.asarray(np.arange(12).reshape(3, 4), dtype=kind, order=order)
    with (tmp_path / "in.npy").open("wb") as stream:
        np.lib.format.write_array(stream, values, version=version)
    read = files.read_records(tmp_path / "in.npy")
    assert (read.dtype, read.shape) == (values.dtype, values.shape)
    assert np.array_equal(read, values)


NPY = "{'descr': '<f8', 'fortran_order': False, 'shape': %s, }\n"
HEADERS = [
    *(NPY % shape for shape in ("(1152921504606846976,)", "(9999999999, 100)", "(-1,)", "(True,)", "()", "(9,)")),
    *(NPY % shape for shape in ("(999999999, 999999999)", "(0,)", "(3", "((3,),)", "(2, 2, 2)")),
    (NPY % "(8,)").replace("<f8", "|O"),
    (NPY % "(8,)").replace("'<f8'", "[]"),
    (NPY % "(8,)").replace("False", "1"),
    "(" * 900,
    "-" * 3000 + "1",
    "{[]:1}",
    "",
]


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_a_forged_array_header_is_one_error(tmp_path, header):
    raw = header.encode()
    (tmp_path / "in.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw + bytes(64))
    with pytest.raises(InputError, match=r"in\.npy: expected"):
        files.read_records(tmp_path / "in.npy")


def test_an_array_with_a_few_changed_bytes_is_read_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "in.npy", records_of())
    good = (tmp_path / "in.npy").read_bytes()
    refused = 0
    for _ in range(2000):
        changed = bytearray(good)
        for at in rng.integers(0, 128, size=2):
            changed[at] = rng.choice(np.frombuffer(b"0123456789-()[]{}',:<f8OUV\n\x00 TF", np.uint8))
        try:
            files.array_of(bytes(changed), name="in.npy")
        except InputError:
            refused += 1
    assert refused > 1000
