from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import InputError, IntegrityError
from mibao.ledger import merkle
from mibao.ledger.merkle import EMPTY, Frontier
from vectors_io import vectors

VECTORS = vectors("ledger", "merkle_rfc6962")
LEAVES = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]
REFUSED_INCLUSION = {case["name"]: case for case in VECTORS["refused_inclusion"]}
REFUSED_CONSISTENCY = {case["name"]: case for case in VECTORS["refused_consistency"]}

leaf_lists = st.lists(st.binary(max_size=8), min_size=1, max_size=40).map(
    lambda data: [merkle.leaf_hash(leaf) for leaf in data]
)


def recursive_root(leaves: Sequence[bytes]) -> bytes:
    """MTH as RFC 6962 defines it, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + recursive_root(leaves[:split]) + recursive_root(leaves[split:])).digest()


def hashes(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


@given(leaves=leaf_lists, cuts=st.lists(st.integers(0, 40), max_size=4))
def test_a_frontier_extended_in_any_batches_has_the_root_of_the_definition(
    leaves: list[bytes], cuts: list[int]
) -> None:
    frontier, start = EMPTY, 0
    for cut in [*sorted(cut for cut in cuts if cut <= len(leaves)), len(leaves)]:
        frontier = frontier.extended(leaves[start:cut])
        assert frontier.root == recursive_root(leaves[:cut])
        assert Frontier.decode(frontier.encode(), size=cut) == frontier
        start = cut


@given(leaves=leaf_lists, pick=st.integers(0, 1 << 30))
def test_every_inclusion_proof_verifies(leaves: list[bytes], pick: int) -> None:
    index = pick % len(leaves)
    proof = merkle.inclusion_proof(leaves, index)
    merkle.verify_inclusion(
        leaves[index], index=index, size=len(leaves), proof=proof, expected_root=recursive_root(leaves)
    )


@given(leaves=leaf_lists, pick=st.integers(0, 1 << 30), where=st.integers(0, 1 << 30), bit=st.integers(0, 255))
def test_an_inclusion_proof_with_one_bit_changed_fails(leaves: list[bytes], pick: int, where: int, bit: int) -> None:
    index = pick % len(leaves)
    parts = [leaves[index], *merkle.inclusion_proof(leaves, index), recursive_root(leaves)]
    at = where % len(parts)
    changed = bytearray(parts[at])
    changed[bit // 8] ^= 1 << bit % 8
    parts[at] = bytes(changed)
    leaf, *proof, root = parts
    with pytest.raises(IntegrityError, match="does not lead to the root"):
        merkle.verify_inclusion(leaf, index=index, size=len(leaves), proof=proof, expected_root=root)


def test_an_inclusion_proof_verifies_at_no_other_index() -> None:
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(13)]
    root = merkle.root(leaves)
    for index in range(13):
        proof = merkle.inclusion_proof(leaves, index)
        for other in range(13):
            if other != index:
                with pytest.raises(IntegrityError):
                    merkle.verify_inclusion(leaves[index], index=other, size=13, proof=proof, expected_root=root)


@settings(max_examples=counts(short=50, long=500))
@given(drop=st.booleans(), size=st.integers(2, 40), pick=st.integers(0, 1 << 30))
def test_an_inclusion_proof_of_another_length_fails(drop: bool, size: int, pick: int) -> None:
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(size)]
    proof = merkle.inclusion_proof(leaves, pick % size)
    changed = proof[:-1] if drop else (*proof, leaves[0])
    with pytest.raises(IntegrityError, match="too short" if drop else "too long"):
        merkle.verify_inclusion(
            leaves[pick % size], index=pick % size, size=size, proof=changed, expected_root=merkle.root(leaves)
        )


def test_every_pair_of_sizes_is_consistent_and_no_proof_fits_another_older_size() -> None:
    largest = counts(short=18, long=70)
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(largest)]
    roots = [recursive_root(leaves[:size]) for size in range(largest + 1)]
    for new_size in range(largest + 1):
        for old_size in range(new_size + 1):
            proof = merkle.consistency_proof(leaves[:new_size], old_size)
            merkle.verify_consistency(
                old_size=old_size, old_root=roots[old_size], new_size=new_size, new_root=roots[new_size], proof=proof
            )
            if 0 < old_size < new_size:
                with pytest.raises(IntegrityError):
                    merkle.verify_consistency(
                        old_size=old_size,
                        old_root=roots[old_size - 1],
                        new_size=new_size,
                        new_root=roots[new_size],
                        proof=proof,
                    )


@given(leaves=leaf_lists, pick=st.integers(0, 1 << 30), changed=st.integers(0, 1 << 30))
def test_a_tree_whose_past_was_changed_is_not_consistent(leaves: list[bytes], pick: int, changed: int) -> None:
    old_size = 1 + pick % len(leaves)
    rewritten = list(leaves)
    rewritten[changed % old_size] = merkle.leaf_hash(b"rewritten history")
    with pytest.raises(IntegrityError):
        merkle.verify_consistency(
            old_size=old_size,
            old_root=merkle.root(leaves[:old_size]),
            new_size=len(leaves),
            new_root=merkle.root(rewritten),
            proof=merkle.consistency_proof(rewritten, old_size),
        )


def test_the_reference_tree_has_its_known_roots() -> None:
    assert merkle.root([]) == merkle.EMPTY_ROOT == sha256(b"").digest()
    for size, root in enumerate(VECTORS["roots"], start=1):
        assert merkle.root(LEAVES[:size]).hex() == root


def test_the_reference_tree_has_its_known_inclusion_proofs() -> None:
    for case in VECTORS["inclusion"]:
        proof = merkle.inclusion_proof(LEAVES[: case["size"]], case["index"])
        assert [node.hex() for node in proof] == case["proof"]


def test_the_reference_tree_has_its_known_consistency_proofs() -> None:
    for case in VECTORS["consistency"]:
        proof = merkle.consistency_proof(LEAVES[: case["new_size"]], case["old_size"])
        assert [node.hex() for node in proof] == case["proof"]


@pytest.mark.parametrize("name", REFUSED_INCLUSION)
def test_an_inclusion_proof_with_one_fault_is_refused(name: str) -> None:
    case = REFUSED_INCLUSION[name]
    with pytest.raises(IntegrityError) as caught:
        merkle.verify_inclusion(
            bytes.fromhex(case["leaf"]),
            index=case["index"],
            size=case["size"],
            proof=hashes(case["proof"]),
            expected_root=bytes.fromhex(case["root"]),
        )
    assert str(caught.value) == case["error"]


@pytest.mark.parametrize("name", REFUSED_CONSISTENCY)
def test_a_consistency_proof_with_one_fault_is_refused(name: str) -> None:
    case = REFUSED_CONSISTENCY[name]
    with pytest.raises(IntegrityError) as caught:
        merkle.verify_consistency(
            old_size=case["old_size"],
            old_root=bytes.fromhex(case["old_root"]),
            new_size=case["new_size"],
            new_root=bytes.fromhex(case["new_root"]),
            proof=hashes(case["proof"]),
        )
    assert str(caught.value) == case["error"]


def test_a_proof_of_a_leaf_that_is_not_there_cannot_be_made() -> None:
    for index in (-1, 8):
        with pytest.raises(InputError, match="expected an index below 8"):
            merkle.inclusion_proof(LEAVES, index)
    with pytest.raises(InputError, match="expected an older size up to 8, got 9"):
        merkle.consistency_proof(LEAVES, 9)


def test_a_frontier_of_another_length_than_its_size_demands_is_refused() -> None:
    for size, data in ((3, bytes(32)), (4, bytes(64)), (1, bytes(31)), (0, bytes(32))):
        with pytest.raises(IntegrityError, match="does not fit the size"):
            Frontier.decode(data, size=size)
