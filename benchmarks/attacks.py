"""The attacks of "must be refused", on us and on the peers, side by side: ``python -m benchmarks.attacks``.

Ours are the tests of the same attacks, run here; a peer's are carried out on its own files, in its own environment. A
peer refuses by an error of its own; one that falls over something else is said to have failed, not to have refused.
It prints the table of ``docs/sealed-compared.md``. The exit status is 1 if one of ours is not refused.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from xml.etree import ElementTree

from benchmarks.peers.venvs import ROOT, ask

TESTS = (
    "tests/sealed/test_sealed_refusals.py",
    "tests/sealed/test_sealed_refusals_signer.py",
    "tests/sealed/test_sealed_refusals_recipients.py",
    "tests/sealed/test_sealed_refusals_limits.py",
    "tests/sealed/test_sealed_state.py",
    "tests/sealed/test_sealed_forgery.py",
)
PEERS = ("cryptotensors", "tensorizer")
NOT_THERE = "-"

# attack: (what is done, our tests of it)
ATTACKS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "bit_flips": (
            "one bit flipped, anywhere",
            ("a_flipped_bit_anywhere_is_refused", "a_flipped_bit_is_refused_in_every_region"),
        ),
        "truncated": ("the file cut by a byte", ("a_truncated_file_is_refused",)),
        "extended": ("a byte added at the end", ("an_extended_file_is_refused",)),
        "swapped_chunks": (
            "two stretches of a tensor swapped",
            ("swapped_chunks_are_refused", "chunks_swapped_together_with_their_index_are_refused"),
        ),
        "swapped_tensors": ("two tensors swapped", ("swapped_tensors_are_refused",)),
        "renamed": ("a tensor renamed", ("a_tensor_renamed_reshaped_or_retyped_by_a_recipient_is_refused",)),
        "reshaped": ("a tensor reshaped", ("a_tensor_renamed_reshaped_or_retyped_by_a_recipient_is_refused",)),
        "retyped": (
            "a tensor given another type",
            ("a_tensor_renamed_reshaped_or_retyped_by_a_recipient_is_refused",),
        ),
        "spliced": (
            "a tensor from an older file under the same key",
            ("a_tensor_spliced_from_an_older_file_under_the_same_key_is_refused",),
        ),
        "older": (
            "an older file in place of the new one",
            ("an_older_file_is_refused_by_who_asks_for_a_version", "the_second_open_refuses_an_older_model"),
        ),
        "mixed_shards": ("shards of two versions in one checkpoint", ("shards_of_two_versions_never_mix",)),
        "swapped_shards": ("two shards swapped", ("swapped_shards_are_refused",)),
        "stripped": ("the cryptographic metadata stripped", ("stripped_metadata_is_refused",)),
        "plaintext": ("an unprotected file in its place", ("a_plaintext_file_in_its_place_is_refused",)),
        "other_signer": ("another signer that the reader knows", ("another_valid_signer_is_refused",)),
        "named_keys": (
            "the file says where the key that checks it lies",
            ("the_file_cannot_name_the_key_that_checks_it",),
        ),
        "left_plain": ("a tensor left unencrypted, and zeroed", ("a_tensor_left_unencrypted_is_refused",)),
        "forged": (
            "weights forged by a holder of the decryption key",
            (
                "forged_weights_are_refused", "forged_weights_are_not_written_to_a_file",
                "forged_weights_are_found_without_a_key", "forged_weights_do_not_reach_a_module",
                "forged_weights_do_not_reach_vllm", "no_part_of_a_checkpoint_can_be_forged",
                "no_part_of_an_adapter_can_be_forged",
            ),
        ),
        "stanzas": (
            "recipients' entries swapped or doubled",
            ("swapped_stanzas_are_refused", "a_duplicated_stanza_is_refused"),
        ),
        "two_plaintexts": ("two keys open one file to two plaintexts", ("one_file_never_opens_to_two_plaintexts",)),
        "two_reads": (
            "bytes swapped between two reads",
            ("bytes_swapped_between_reads_gain_nothing_because_there_is_one_read",),
        ),
        "absurd_sizes": (
            "absurd sizes in the header",
            (
                "absurd_lengths_are_refused_before_memory_is_reserved",
                "absurd_counts_and_depths_are_refused_within_bounded_memory",
            ),
        ),
    }
)  # fmt: skip


def ours() -> dict[str, str]:
    """The answer of our tests: "refused", or which of them do not pass."""
    report = ROOT / ".bench-cache" / "attacks.xml"
    report.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *TESTS]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=600, check=False)
    passed: dict[str, bool] = {}
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314  written by the command above
        name = case.get("name", "").removeprefix("test_").split("[")[0]
        passed[name] = passed.get(name, True) and len(case) == 0
    answers = {}
    for attack, (_, tests) in ATTACKS.items():
        missing = [test for test in tests if not passed.get(test, False)]
        answers[attack] = f"NOT SHOWN: {', '.join(missing)}" if missing else "refused"
    return answers


def peers(names: Sequence[str] = PEERS) -> dict[str, dict[str, str]]:
    """Each peer's answers; a peer that does not run here has none."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        try:
            found[name] = {key: str(value) for key, value in ask(name, f"{name}_attacks.py").items()}
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{name} does not run here: {error}", file=sys.stderr)
            found[name] = {}
    return found


def lines(mine: Mapping[str, str], theirs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The table, in Markdown."""
    heads = ["attack", "mibao", *(f"{name} {version}" for name, version in (("cryptotensors", "0.2.3"),
             ("tensorizer", "2.12.1")))]  # fmt: skip
    table = [heads, ["---"] * len(heads)]
    for attack, (done, _) in ATTACKS.items():
        table.append([done, mine[attack], *(theirs[name].get(attack, NOT_THERE) for name in PEERS)])
    return [f"| {' | '.join(row)} |" for row in table]


def main() -> int:
    """Print the table; 1 if one of ours is not refused."""
    mine, theirs = ours(), peers()
    for line in lines(mine, theirs):
        print(line)
    return int(any(answer != "refused" for answer in mine.values()))


if __name__ == "__main__":
    sys.exit(main())
