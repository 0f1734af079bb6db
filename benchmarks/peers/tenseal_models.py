"""TenSEAL: one sample of ``mlp|cnn|lr|lenet``, whose weights lie in the given ``.npz``.

Measured as a server sees it, in CPU time on one thread: from the bytes of a request to the bytes of an answer. The
parameters are the smallest that the depth and SEAL's table allow. After rescaling it sets the scale to its nominal
value, which costs precision; the largest error is printed beside its time.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tenseal as ts

ROUNDS = 5
SMALL = (4096, [38, 30, 38], 2.0**30)
DEEP = (8192, [47, 40, 40, 40, 47], 2.0**40)
TUTORIAL = (8192, [31, 26, 26, 26, 26, 26, 26, 31], 2.0**26)  # what its tutorial takes for this network
DEEPER = (8192, [44, 32, 32, 32, 32, 44], 2.0**32)  # packing the channels takes one level more


def context(parameters: tuple[int, list[int], float]) -> Any:
    """TenSEAL's context; the secret key is in it, as in its tutorials, and only used to check the answer."""
    degree, primes, scale = parameters
    made = ts.context(ts.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=primes, n_threads=1)
    made.global_scale = scale
    made.generate_galois_keys()
    return made


def mlp(held: Any, made: Any) -> tuple[bytes, Callable[[bytes], bytes]]:
    """One vector a row, its tutorials' ``mm``.

    A one at the end of the record carries the biases: added as a vector they would not reach the repeated slots that
    the second ``mm`` reads, and its answers would be wrong.
    """
    one = np.zeros((1, 65))
    one[0, 64] = 1.0
    first = np.concatenate([np.concatenate([held["w1"], held["b1"][:, None]], axis=1), one]).T.tolist()
    last = np.concatenate([held["w2"], held["b2"][:, None]], axis=1).T.tolist()

    def evaluate(request: bytes) -> bytes:
        hidden = ts.ckks_vector_from(made, request).mm(first)
        hidden.square_()
        return hidden.mm(last).serialize()  # type: ignore[no-any-return]

    return ts.ckks_vector(made, np.append(held["test"][0], 1.0)).serialize(), evaluate


def cnn(held: Any, made: Any) -> tuple[bytes, Callable[[bytes], bytes]]:
    """Its tutorials' im2col encoding, one convolution a channel, and ``mm``."""
    encrypted, windows = ts.im2col_encoding(made, held["test"][0].reshape(8, 8).tolist(), 3, 3, 1)
    kernels, biases = held["w1"][:, 0].tolist(), held["b1"].tolist()
    last, b2 = held["w2"].T.tolist(), held["b2"].tolist()

    def evaluate(request: bytes) -> bytes:
        image = ts.ckks_vector_from(made, request)
        channels = [image.conv2d_im2col(kernel, windows) + bias for kernel, bias in zip(kernels, biases, strict=True)]
        hidden = ts.CKKSVector.pack_vectors(channels)
        hidden.square_()
        return (hidden.mm(last) + b2).serialize()  # type: ignore[no-any-return]

    return encrypted.serialize(), evaluate


def lenet(held: Any, made: Any) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The network of its own tutorial, as it stands there."""
    encrypted, windows = ts.im2col_encoding(made, held["test"][0].reshape(28, 28).tolist(), 7, 7, 3)
    kernels, biases = held["w1"][:, 0].tolist(), held["b1"].tolist()
    layers = [(held[f"w{layer}"].T.tolist(), held[f"b{layer}"].tolist()) for layer in (2, 3)]

    def evaluate(request: bytes) -> bytes:
        image = ts.ckks_vector_from(made, request)
        channels = [image.conv2d_im2col(kernel, windows) + bias for kernel, bias in zip(kernels, biases, strict=True)]
        hidden = ts.CKKSVector.pack_vectors(channels)
        for weights, bias in layers:
            hidden.square_()
            hidden = hidden.mm(weights) + bias
        return hidden.serialize()  # type: ignore[no-any-return]

    return encrypted.serialize(), evaluate


def logistic(held: Any, made: Any) -> tuple[bytes, Callable[[bytes], bytes]]:
    """One vector a row, one dot product."""
    weights, bias = held["w"].tolist(), held["b"].tolist()

    def evaluate(request: bytes) -> bytes:
        return (ts.ckks_vector_from(made, request).dot(weights) + bias).serialize()  # type: ignore[no-any-return]

    return ts.ckks_vector(made, held["test"][0]).serialize(), evaluate


def expected(name: str, held: Any) -> Any:
    """The logits of the first test record."""
    record = held["test"][0]
    if name == "lr":
        return record @ held["w"] + held["b"]
    if name == "lenet":
        windows = np.lib.stride_tricks.sliding_window_view(record.reshape(28, 28), (7, 7))[::3, ::3]
        hidden = np.einsum("yxij,oij->oyx", windows, held["w1"][:, 0]) + held["b1"][:, None, None]
        return held["w3"] @ (held["w2"] @ hidden.ravel() ** 2 + held["b2"]) ** 2 + held["b3"]
    if name == "mlp":
        hidden = held["w1"] @ record + held["b1"]
    else:
        windows = np.lib.stride_tricks.sliding_window_view(record.reshape(8, 8), (3, 3))
        hidden = (np.einsum("yxij,oij->oyx", windows, held["w1"][:, 0]) + held["b1"][:, None, None]).ravel()
    return held["w2"] @ hidden**2 + held["b2"]


def main(name: str, path: str) -> dict[str, float]:
    """CPU ms of a forward, the fastest of several, its error, and sizes."""
    held = np.load(path)
    made = context({"mlp": DEEP, "cnn": DEEPER, "lr": SMALL, "lenet": TUTORIAL}[name])
    request, evaluate = {"mlp": mlp, "cnn": cnn, "lr": logistic, "lenet": lenet}[name](held, made)
    milliseconds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        answer = evaluate(request)
        milliseconds.append((time.process_time() - started) * 1e3)
    wanted = expected(name, held)
    got = np.array(ts.ckks_vector_from(made, answer).decrypt())[: wanted.size]
    error = float(np.abs(got - wanted).max())
    public = made.serialize(save_public_key=False, save_secret_key=False, save_galois_keys=True, save_relin_keys=True)
    print(f"{name}: {min(milliseconds):.1f} ms, largest error {error:.1e}", file=sys.stderr)
    return {
        "ms": min(milliseconds),
        "error": error,
        "request_bytes": len(request),
        "answer_bytes": len(answer),
        "keys_bytes": len(public),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2])))
