"""Three attacks on Flower's SecAgg+, on its own client functions: what the server gets to see.

* ``seed_bits``: bits that any mask seed of a pair can have, of the keys that it agrees on.
* ``overlap``: the server calls one client active and dead at once, and reads that client's vector.
* ``swapped_keys``: the server puts keys of its own in place of the others', and reads that client's vector.

1.0 means that the attack succeeded, vector and all.
"""

import json
from typing import Any

import numpy as np
from flower_rows import CLIPPING, MODULUS, TARGET, Round, mod, setup, vectors_of
from flwr.common import ConfigRecord
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.ndarrays_arithmetic import get_parameters_shape
from flwr.common.secure_aggregation.quantization import dequantize
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    public_key_to_bytes,
)

CLIENTS, LENGTH, VICTIM, THRESHOLD = 3, 50, 1, 3


def seed_bits(keys: int = 400) -> float:
    """Bits that differ between any two folded seeds: ``pseudo_rand_gen`` seeds a generator with 32 bits of xor."""
    ever_one, ever_zero = 0, 0
    for _ in range(keys):
        ours, theirs = generate_key_pairs()[0], generate_key_pairs()[1]
        shared, folded = mod.generate_shared_key(ours, theirs), 0
        for start in range(0, len(shared), 4):
            folded ^= int.from_bytes(shared[start : start + 4], "little")
        ever_one |= folded
        ever_zero |= ~folded & 0xFFFFFFFF
    return float((ever_one & ever_zero).bit_count())


def unmasked(uploaded: Any, private_seed: bytes, pairs: dict[int, bytes]) -> Any:
    """The vector behind one upload, as its weighted mean would have it."""
    shapes = get_parameters_shape(uploaded)
    plain = [part.copy() for part in uploaded]
    for sign, seed in [(-1, private_seed), *((-1 if n < VICTIM else 1, seed) for n, seed in pairs.items())]:
        streams = pseudo_rand_gen(seed, MODULUS, shapes)
        plain = [part + sign * stream for part, stream in zip(plain, streams, strict=True)]
    plain = [part % MODULUS for part in plain]
    ratio = float(plain[0].ravel()[0])
    return dequantize(plain[1:], CLIPPING, TARGET)[0] * (TARGET / ratio)


def overlap() -> float:
    """Ask every client for both halves of the victim's secrets."""
    played = Round(CLIENTS, LENGTH, shares=CLIENTS, threshold=THRESHOLD)
    uploads = played.upload()
    ask = ConfigRecord({Key.ACTIVE_NODE_ID_LIST: [1, 2, 3], Key.DEAD_NODE_ID_LIST: [VICTIM]})
    revealed = {n: played.timed(n, mod._unmask, ask)[Key.SHARE_LIST] for n in played.seconds}
    private_seed = combine_shares([revealed[n][0] for n in revealed])
    secret = bytes_to_private_key(combine_shares([revealed[n][3] for n in revealed]))
    public = {n: state.pk1 for n, state in played.states.items() if n != VICTIM}
    pairs = {n: mod.generate_shared_key(secret, bytes_to_public_key(key)) for n, key in public.items()}
    return read(vectors_of(uploads[VICTIM]), private_seed, pairs, played.vectors[VICTIM])


def swapped_keys() -> float:
    """Pretend to be everybody else: two clients of the server's own making."""
    played = Round(CLIENTS, LENGTH, shares=CLIENTS, threshold=THRESHOLD)
    first = played.timed(VICTIM, mod._setup, setup(CLIENTS, shares=CLIENTS, threshold=THRESHOLD))
    made = {n: (generate_key_pairs(), generate_key_pairs()) for n in (2, 3)}
    keys = {"1": [first[Key.PUBLIC_KEY_1], first[Key.PUBLIC_KEY_2]]}
    keys |= {str(n): [public_key_to_bytes(one[1]), public_key_to_bytes(two[1])] for n, (one, two) in made.items()}
    sent = played.timed(VICTIM, mod._share_keys, ConfigRecord(keys))
    own, seeds = played.states[VICTIM], []
    for target, text in zip(sent[Key.DESTINATION_LIST], sent[Key.CIPHERTEXT_LIST], strict=True):
        key = mod.generate_shared_key(made[target][1][0], bytes_to_public_key(own.pk2))
        seeds.append(mod.share_keys_plaintext_separate(mod.decrypt(key, text))[2])
    # Its own share is the third: asked for as any active client's is.
    texts = {
        n: mod.encrypt(
            mod.generate_shared_key(made[n][1][0], bytes_to_public_key(own.pk2)),
            mod.share_keys_plaintext_concat(n, VICTIM, b"", b""),
        )
        for n in made
    }
    uploaded = vectors_of(played.masked(VICTIM, list(texts), list(texts.values())))
    ask = ConfigRecord({Key.ACTIVE_NODE_ID_LIST: [1, 2, 3], Key.DEAD_NODE_ID_LIST: []})
    seeds.append(played.timed(VICTIM, mod._unmask, ask)[Key.SHARE_LIST][0])
    pairs = {
        n: mod.generate_shared_key(one[0], bytes_to_public_key(first[Key.PUBLIC_KEY_1])) for n, (one, _) in made.items()
    }
    return read(uploaded, combine_shares(seeds), pairs, played.vectors[VICTIM])


def read(uploaded: Any, private_seed: bytes, pairs: dict[int, bytes], truth: Any) -> float:
    """1.0 if the victim's vector came out."""
    found = unmasked(uploaded, private_seed, pairs)
    return float(np.abs(found - truth).max() < 1e-2)


if __name__ == "__main__":
    print(json.dumps({"seed_bits": seed_bits(), "overlap": overlap(), "swapped_keys": swapped_keys()}))
