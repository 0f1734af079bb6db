"""Coverage-guided fuzzing of everything that parses a sealed file. Not part of the tests; atheris is not a dependency.

    pip install atheris
    PYTHONPATH=tests python tests/fuzz/sealed_atheris.py -max_total_time=600 -artifact_prefix=corpus/ corpus/

The first byte of an input chooses the parser. Whatever it is given, a parser returns or raises one of the documented
errors, and a whole file opens only if it is, byte for byte, the one that was sealed, but for its list of recipients.
A crash, another exception or memory beyond ``-rss_limit_mb`` (libFuzzer's, 2048 by default) is a finding.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mibao.sealed", "mibao.codec"]):
    import sealed_kit as kit
    from mibao.codec import tensor_table
    from mibao.errors import InputError, IntegrityError, KeyMismatch
    from mibao.sealed import layout, manifest, model_table, opening, recipients
    from mibao.sealed.source import MemorySource

GOOD = kit.sealed_bytes()
PREAMBLE = layout.parse_preamble(GOOD[: layout.PREAMBLE_BYTES], file_bytes=len(GOOD))
SLOTS = slice(PREAMBLE.slot_at(0), PREAMBLE.table_at)
TRUE = kit.opened_parts(GOOD)
DATA_BYTES = [len(TRUE[0]) - tensor_table.header_bytes(TRUE[0])]


def whole_file(data: bytes) -> None:
    """A file that opens holds what was sealed, and is the one that was sealed outside the list of recipients."""
    opened = kit.opened_parts(data)
    if opened != TRUE or len(data) != len(GOOD):
        raise AssertionError("an altered file was opened")
    for region in (slice(0, layout.PREAMBLE_BYTES), slice(128, SLOTS.start), slice(SLOTS.stop, None)):
        if data[region] != GOOD[region]:
            raise AssertionError("a file with other signed bytes was opened")


PARSERS: tuple[Callable[[bytes], object], ...] = (
    whole_file,
    lambda data: layout.parse_preamble(data[: layout.PREAMBLE_BYTES], file_bytes=len(GOOD)),
    lambda data: layout.parse_selector(data[: layout.SELECTOR_BYTES]),
    manifest.decode,
    recipients.decode_slot,
    lambda data: model_table.decode(data, data_bytes=DATA_BYTES),
    tensor_table.parse,
    kit.verify,
)


def one_input(data: bytes) -> None:
    """What atheris calls."""
    if not data:
        return
    with contextlib.suppress(InputError, IntegrityError, KeyMismatch):
        PARSERS[data[0] % len(PARSERS)](data[1:])


def seeds(folder: Path) -> None:
    """The sealed file and its regions, each behind the byte that chooses its parser; libFuzzer mutates from there."""
    folder.mkdir(parents=True, exist_ok=True)
    envelope = opening.read_verified(MemorySource(GOOD), signer=kit.VENDOR.public)
    opened = opening.open_file(MemorySource(GOOD), envelope, kit.ALICE)
    regions = (
        GOOD,
        GOOD[: layout.PREAMBLE_BYTES],
        GOOD[layout.PREAMBLE_BYTES : layout.PREAMBLE_BYTES + layout.SELECTOR_BYTES],
        GOOD[PREAMBLE.manifest_at : PREAMBLE.signature_at],
        GOOD[PREAMBLE.slot_at(0) : PREAMBLE.slot_at(1)],
        model_table.encode(opened.table),
        TRUE[0][: tensor_table.header_bytes(TRUE[0])],
        GOOD,
    )
    for number, region in enumerate(regions):
        (folder / f"seed-{number}").write_bytes(bytes([number]) + region)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        if not argument.startswith("-"):
            seeds(Path(argument))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
