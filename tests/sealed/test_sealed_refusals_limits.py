"""Sizes, counts and depths beyond the limits: refused before memory is reserved for them."""

import tracemalloc

import pytest

from mibao.errors import InputError, IntegrityError
from mibao.sealed import manifest, recipients
from sealed_faults import refused, replaced


@pytest.mark.parametrize(
    ("at", "size", "message"),
    [
        (12, 4, "recipients' slot: expected 4096 to 1048576 bytes"),
        (16, 4, "manifest: expected 1 to 1048576 bytes"),
        (20, 4, "signature: expected 1 to 8192 bytes"),
        (24, 8, "table: expected 1 to 268435456 bytes"),
        (32, 8, "index: expected 0 to"),
    ],
)
def test_absurd_lengths_are_refused_before_memory_is_reserved(at, size, message):
    tracemalloc.start()
    try:
        refused(replaced(at, b"\xff" * size), InputError, message)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_table_longer_than_the_file_is_refused_before_memory_is_reserved():
    refused(replaced(24, (1 << 28).to_bytes(8, "big")), IntegrityError, "file: shorter than its header says")


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x9b\x00\x00\x00\xff\xff\xff\xff\xff",  # a list of 2**40 items
        b"\x5b\x00\x00\x00\xff\xff\xff\xff\xff",  # a string of 2**40 bytes
        b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff",  # a map of 2**63 entries
        b"\x81" * 4000,  # lists 4000 deep
        b"\x9f" * 4000,
        b"\xd8\x1c" * 2000,  # shared values
    ],
)
@pytest.mark.parametrize("place", ["manifest", "slot"])
def test_absurd_counts_and_depths_are_refused_within_bounded_memory(bomb, place):
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError):
            if place == "slot":
                recipients.decode_slot((len(bomb).to_bytes(4, "big") + bomb).ljust(4096, b"\0"))
            else:
                manifest.decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
