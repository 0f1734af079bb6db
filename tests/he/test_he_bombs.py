"""Small files that ask a compute host for gigabytes: refused at once, under a limit on memory."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from he_cases import BOTH, DATA, MANY, WEIGHTS, circuit, records_of, reframed, request, weights_of
from mibao import he
from mibao.errors import InputError, IntegrityError
from mibao.he import files
from mibao.he.envelope import Kind
from mibao.he.parameters import Parameters
from mibao.he.program import Fold, Program
from mibao.he.scheduling import schedule
from mibao.he.spec import MAX_ANSWER_BYTES

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
ROTATING = Parameters(ring_degree=4096, modulus_bits=(40, 40), scale_bits=20)
TOO_MUCH = "program: one batch would hold more than 1024 MiB of a host's memory"


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


def forged(*, program=None, body=None, **fields):
    """A circuit's bundle with other fields, instructions or constants: what no compiler writes."""

    def header(held):
        return {"spec": held["spec"] | fields, "program": program or held["program"]}

    whole = circuit().to_bytes()
    return reframed(whole, Kind.CLEAR_BUNDLE, header=header, body=None if body is None else lambda _: body)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ring_degree": 65536}, "expected a ring degree"),
        ({"ring_degree": 32768, "modulus_bits": [20] * 40}, "expected at most 17 primes"),
        ({"ring_degree": 32768, "modulus_bits": [60] * 15}, "below 128-bit security"),
        ({"ring_degree": 2048, "modulus_bits": [27, 27]}, "below 128-bit security"),
        ({"ring_degree": 32768, "modulus_bits": [61]}, "expected primes of 20 to 60 bits"),
        (
            {"ring_degree": 32768, "modulus_bits": [50] * 17, "rotations": [1, 2]},
            "evaluation keys would exceed 250 MiB",
        ),
        ({"ring_degree": 8192, "modulus_bits": [50] * 4, "rotations": list(range(1, 200))}, "keys would exceed"),
        ({"ring_degree": 8192, "modulus_bits": [60] * 3, "rotations": [4096]}, "each less than the slots"),
        ({"ring_degree": 8192, "modulus_bits": [60] * 3, "rotations": [2, 2]}, "in ascending order"),
        ({"low": bytes(8 * 16385), "high": bytes(8 * 16385)}, "expected 1 to 16384 features"),
        ({"input_shape": [2**62, 2**62]}, "has no 4 features"),
    ],
)
def test_parameters_that_no_circuit_is_compiled_to_are_refused(fields, message):
    with pytest.raises(IntegrityError, match=f"circuit: describes no possible circuit .*{message}"):
        he.Circuit.from_bytes(forged(**fields))


@pytest.mark.parametrize(
    ("part", "message"), [("request", "one batch would exceed 1 GiB"), ("answer", "answer would exceed 256 MiB")]
)
def test_a_batch_of_gigabytes_is_refused(part, message):
    held = circuit().spec.to_value()[part]
    fields = {"ring_degree": 32768, "modulus_bits": [60] * 14, part: held | {"count": 16384}}
    with pytest.raises(IntegrityError, match=f"circuit: describes no possible circuit .*{message}"):
        he.Circuit.from_bytes(forged(**fields))


LARGE = {"ring_degree": 32768, "modulus_bits": [60] * 14}
BOMBS = {
    "a stack of copies": ([["weigh", 0, [16384, 4]], ["weigh", 1, [2, 16384]]], 16384 * 6),
    "a constant a ciphertext": ([["weigh", 0, [900, 4]], ["shift", 1, [900]], ["weigh", 2, [2, 900]]], 900 * 7),
    "many registers": (
        [["square", 0]] * 100 + [["add", 0, place] for place in range(1, 101)] + [["weigh", 200, [2, 4]]],
        8,
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bundle_of_kilobytes_that_asks_for_gigabytes_is_refused_at_once(tmp_path, bomb):
    program, numbers = BOMBS[bomb]
    bundle = forged(program=program, body=bytes(8 * numbers), **LARGE)
    assert len(bundle) < 1 << 20
    said, seconds = under_a_limit(tmp_path, bundle, circuit().keygen()[1].keys_bytes())
    assert said == f"IntegrityError {TOO_MUCH}"
    assert seconds < 1


def test_rotations_without_end_are_refused():
    program = [["rotate", 0, [1] * 4095]] * 64
    with pytest.raises(IntegrityError, match="program: instruction 1 does not suit what it reads"):
        he.Circuit.from_bytes(forged(program=program, body=b""))
    program = [["fold", place, [1] * 4096] for place in range(64)]
    with pytest.raises(IntegrityError, match=r"program: (its answer|it needs other keys)"):
        he.Circuit.from_bytes(forged(program=program, body=b""))


@pytest.mark.parametrize("rows", [1, MANY])
def test_a_program_that_takes_hours_is_refused(rows):
    spec = circuit(outputs=4, rows=rows).spec
    folds = tuple(Fold(place, (1,) * 4096) for place in range(1000))
    program = Program(slots=spec.parameters.slots, instructions=folds, request=spec.request, answer=spec.answer)
    with pytest.raises(IntegrityError, match="program: it would take a host too long"):
        schedule(replace(spec, parameters=ROTATING, rotations=(1,)), program)


def test_the_widest_weights_in_clear_are_held_unencoded(tmp_path):
    compiled = circuit(features=4096, outputs=32, max_error=1e-6)
    keys = he.generate_client(compiled.spec).server_keys()
    assert compiled.spec.parameters.ring_degree >= 4096  # encoded, 8 GiB
    said, seconds = under_a_limit(tmp_path, compiled.to_bytes(), keys)
    assert said == "taken"
    assert seconds < 1


def test_a_request_whose_answer_would_be_too_large_is_refused_before_any_work(tmp_path):
    compiled = circuit(features=1, outputs=256)
    client, server = compiled.keygen()
    batches = MAX_ANSWER_BYTES // compiled.spec.answer_bytes(1) + 1
    rows = batches * compiled.spec.request.rows
    small = client.encrypt(records_of(rows=1, features=1))
    sent = reframed(small, Kind.REQUEST, header=lambda held: {**held, "rows": rows}, body=lambda body: body * batches)
    assert compiled.spec.answer_bytes(rows) > 1 << 28 >= compiled.spec.answer_bytes(rows - compiled.spec.request.rows)
    said, seconds = under_a_limit(tmp_path, server.bundle_bytes(), server.keys_bytes(), sent)
    assert said == f"InputError request: the answer to {rows} rows would exceed 256 MiB; send fewer at a time"
    assert seconds < 1


@pytest.mark.parametrize("mode", [DATA, WEIGHTS])
def test_the_sender_hears_it_first(mode):
    compiled = circuit(mode, features=1, outputs=256)
    rows = (MAX_ANSWER_BYTES // compiled.spec.answer_bytes(1) + 1) * compiled.spec.request.rows
    with pytest.raises(InputError, match="would exceed 256 MiB"):
        request(compiled.spec, he.generate_client(compiled.spec), np.zeros((rows, 1)))


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
    spec = replace(circuit().spec, high=np.full(4, 1e301))
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
