"""Thousands of files altered with knowledge of the format: none is accepted, none crashes, memory stays bounded."""

from __future__ import annotations

import resource

import cbor2
import numpy as np
from safetensors.numpy import save

import sealed_kit as kit
from counts import counts
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.sealed import layout
from mibao.sealed.layout import PREAMBLE_BYTES

GOOD = kit.sealed_bytes()
PREAMBLE = layout.parse_preamble(GOOD[:PREAMBLE_BYTES], file_bytes=len(GOOD))
RECIPIENTS = slice(PREAMBLE.slot_at(0), PREAMBLE.table_at)
OLDER = kit.sealed_bytes(("model.safetensors", save(kit.tensors(fill=8))), version=2)  # under the same key
DONORS = (
    # With our own list of recipients: an older list of the same file key may be put back, and gains nothing.
    b"".join((OLDER[:64], GOOD[64:128], OLDER[128 : RECIPIENTS.start], GOOD[RECIPIENTS], OLDER[RECIPIENTS.stop :])),
    kit.sealed_bytes(file_id=b"J" * 16, file_key=b"M" * 32, version=2),
    kit.sealed_bytes(by=kit.RIVAL),
)
CUTS = sorted(
    {0, 8, 12, 16, 20, 24, 32, 40, 64, 96, 128, PREAMBLE.signature_at, PREAMBLE.slot_at(0), PREAMBLE.slot_at(1)}
    | {PREAMBLE.table_at, PREAMBLE.index_at, PREAMBLE.padding_at, PREAMBLE.data_at, len(GOOD)}
)
INTERESTING = (0, 1, 17, 36, 4096, 4097, 1 << 16, 1 << 20, 1 << 28, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)


def flip(data: bytearray, draw: np.random.Generator) -> None:
    for at in draw.integers(0, len(data), draw.integers(1, 4)):
        data[at] ^= 1 << draw.integers(8)


def flip_in_a_region(data: bytearray, draw: np.random.Generator) -> None:
    start, end = region(draw)
    data[min(int(draw.integers(start, end)), len(data) - 1)] ^= 1 << draw.integers(8)


def number(data: bytearray, draw: np.random.Generator) -> None:
    at = int(draw.choice([8, 10, 12, 16, 20, 24, 28, 32, 36, 64, PREAMBLE.slot_at(0), PREAMBLE.index_at]))
    data[at : at + 4] = int(draw.choice(INTERESTING)).to_bytes(4, "big")


def zero(data: bytearray, draw: np.random.Generator) -> None:
    start, end = region(draw)
    data[start:end] = bytes(end - start)


def graft(data: bytearray, draw: np.random.Generator) -> None:
    """A region of another file in place of ours."""
    donor = DONORS[draw.integers(len(DONORS))]
    first, last = sorted(int(each) for each in draw.integers(0, len(CUTS), 2))
    data[CUTS[first] : CUTS[last]] = donor[CUTS[first] : CUTS[last]]


def swap(data: bytearray, draw: np.random.Generator) -> None:
    size = int(draw.choice([16, 36, 4112, 1024]))
    one, two = sorted(int(each) for each in draw.integers(0, len(data) - size, 2))
    held = bytes(data[one : one + size])
    data[one : one + size] = data[two : two + size]
    data[two : two + size] = held[: len(data[two : two + size])]


def cut(data: bytearray, draw: np.random.Generator) -> None:
    del data[int(draw.choice(CUTS)) if draw.integers(2) else int(draw.integers(len(data))) :]


def drop(data: bytearray, draw: np.random.Generator) -> None:
    start, end = region(draw)
    del data[start:end]


def insert(data: bytearray, draw: np.random.Generator) -> None:
    at = int(draw.choice(CUTS))
    data[at:at] = bytes(int(draw.choice([1, 16, 36, 4096])))


def other_manifest(data: bytearray, draw: np.random.Generator) -> None:
    """The manifest's fields changed, well formed, lengths made right: all an outsider lacks is the signature."""
    fields = cbor2.loads(GOOD[128 : PREAMBLE.signature_at])
    name = str(draw.choice(sorted(fields)))
    held = fields[name]
    if isinstance(held, int):
        fields[name] = int(draw.choice(INTERESTING))
    elif isinstance(held, bytes):
        fields[name] = draw.bytes(len(held))
    elif isinstance(held, str):
        fields[name] = held[::-1]
    else:
        fields[name] = held * int(draw.integers(0, 4)) or [{"bytes": 0, "chunks": 0, "root": bytes(32)}]
    raw = cbor2.dumps(fields, canonical=True)
    data[128 : PREAMBLE.signature_at] = raw
    data[16:20] = len(raw).to_bytes(4, "big")


def other_stanzas(data: bytearray, draw: np.random.Generator) -> None:
    start, end = PREAMBLE.slot_at(0), PREAMBLE.slot_at(1)
    length = int.from_bytes(GOOD[start : start + 4], "big")
    stanzas = cbor2.loads(GOOD[start + 4 : start + 4 + length])
    stanza = stanzas[draw.integers(len(stanzas))]
    name = str(draw.choice(sorted(stanza)))
    choices = [stanzas[::-1], stanzas[:1], stanzas[1:], stanzas * 2, [], [stanza | {name: stanza[name][:-1]}, *stanzas]]
    raw = cbor2.dumps(choices[draw.integers(len(choices))], canonical=True)
    data[start:end] = (len(raw).to_bytes(4, "big") + raw).ljust(end - start, b"\0")[: end - start]


def region(draw: np.random.Generator) -> tuple[int, int]:
    at = int(draw.integers(len(CUTS) - 1))
    return CUTS[at], CUTS[at + 1]


MUTATIONS = (
    flip, flip_in_a_region, number, zero, graft, swap, cut, drop, insert, other_manifest, other_stanzas,
)  # fmt: skip


def test_no_altered_file_is_accepted_and_none_crashes():
    draw = np.random.default_rng(20261123)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = dict.fromkeys((InputError, IntegrityError, KeyMismatch), 0)
    tried = 0
    while tried < counts(short=200, long=20_000):
        data = bytearray(GOOD)
        for mutate in [MUTATIONS[each] for each in draw.integers(0, len(MUTATIONS), draw.integers(1, 3))]:
            if len(data) > PREAMBLE.data_at:
                mutate(data, draw)
        if data == GOOD:
            continue
        tried += 1
        try:
            kit.opened_parts(bytes(data), min_version=3)
        except tuple(refused) as error:
            refused[type(error)] += 1
        else:
            raise AssertionError(f"accepted: {data.hex()[:300]}")
    assert all(refused.values()), "each kind of refusal was met"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10, "at most 256 MiB more"
