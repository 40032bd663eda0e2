"""The log's tree against the definition in RFC 6962 and the reference vectors of Certificate Transparency."""

import hashlib
import itertools
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from jobledger.merkle import EMPTY_ROOT, consistency_holds, inclusion_holds, leaf_hash, node_hash
from jobledger.tlog import Checkpoint, InclusionProof, LogProofError, NoteKey, open_checkpoint, sign_checkpoint
from jobledger_server.core.merkle import Tree

REFERENCE_LEAVES = [
    bytes.fromhex(it)
    for it in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
REFERENCE_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
FIRST_OF_EIGHT = [
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
]
SIX_TO_EIGHT = [
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
]
LARGEST = 70


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    half = split(len(leaves))
    return node_hash(naive_root(leaves[:half]), naive_root(leaves[half:]))


def naive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    half = split(len(leaves))
    if index < half:
        return [*naive_path(index, leaves[:half]), naive_root(leaves[half:])]
    return [*naive_path(index - half, leaves[half:]), naive_root(leaves[:half])]


def naive_consistency(old: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2."""
    if old == len(leaves):
        return [] if whole else [naive_root(leaves)]
    half = split(len(leaves))
    if old <= half:
        return [*naive_consistency(old, leaves[:half], whole), naive_root(leaves[half:])]
    return [*naive_consistency(old - half, leaves[half:], False), naive_root(leaves[:half])]


def split(count: int) -> int:
    half = 1
    while half * 2 < count:
        half *= 2
    return half


def numbered(count: int) -> list[bytes]:
    return [b"leaf %d" % number for number in range(count)]


def hexes(hashes: list[bytes]) -> list[str]:
    return [it.hex() for it in hashes]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_reference_vectors(size: int) -> None:
    assert Tree(REFERENCE_LEAVES[:size]).root().hex() == REFERENCE_ROOTS[size]
    assert Tree(REFERENCE_LEAVES).root(size).hex() == REFERENCE_ROOTS[size]


def test_proofs_are_those_of_the_reference_vectors() -> None:
    tree = Tree(REFERENCE_LEAVES)
    assert hexes(tree.inclusion(0)) == FIRST_OF_EIGHT
    assert hexes(tree.consistency(1)) == FIRST_OF_EIGHT
    assert hexes(tree.consistency(6)) == SIX_TO_EIGHT


@given(st.lists(st.binary(max_size=4), max_size=LARGEST), st.data())
def test_any_past_size_has_the_root_and_proofs_of_the_definition(leaves: list[bytes], data: st.DataObject) -> None:
    tree = Tree(leaves)
    size = data.draw(st.integers(0, len(leaves)))
    assert tree.root(size) == naive_root(leaves[:size])
    if size:
        index = data.draw(st.integers(0, size - 1))
        assert tree.inclusion(index, size) == naive_path(index, leaves[:size])
        old = data.draw(st.integers(1, size))
        assert tree.consistency(old, size) == naive_consistency(old, leaves[:size])


@given(st.integers(1, LARGEST), st.data())
def test_an_inclusion_proof_holds_for_its_leaf_index_size_and_root_alone(size: int, data: st.DataObject) -> None:
    tree = Tree(numbered(size))
    index = data.draw(st.integers(0, size - 1))
    proof: dict[str, Any] = {
        "hashed_leaf": tree.leaf_hash(index),
        "index": index,
        "size": size,
        "path": tree.inclusion(index),
        "root": tree.root(),
    }
    assert inclusion_holds(**proof)
    assert not inclusion_holds(**proof | {"hashed_leaf": leaf_hash(b"another")})
    assert not inclusion_holds(**proof | {"root": EMPTY_ROOT})
    assert not inclusion_holds(**proof | {"path": [*tree.inclusion(index), EMPTY_ROOT]})
    assert not inclusion_holds(**proof | {"index": size})
    assert not inclusion_holds(**proof | {"index": -1})
    other = data.draw(st.integers(0, size - 1).filter(lambda it: it != index)) if size > 1 else size
    assert not inclusion_holds(**proof | {"index": other})
    if size > 1:
        assert not inclusion_holds(**proof | {"path": tree.inclusion(index)[:-1]})


def test_a_consistency_proof_holds_for_its_sizes_and_roots_alone() -> None:
    tree = Tree(numbered(20))
    for old, new in itertools.combinations_with_replacement(range(21), 2):
        proof: dict[str, Any] = {
            "old_size": old,
            "old_root": tree.root(old),
            "new_size": new,
            "new_root": tree.root(new),
            "path": tree.consistency(old, new),
        }
        assert consistency_holds(**proof), (old, new)
        assert not consistency_holds(**proof | {"old_root": leaf_hash(b"rewritten")}), (old, new)
        assert not consistency_holds(**proof | {"path": [*tree.consistency(old, new), EMPTY_ROOT]}), (old, new)
        if old < new:
            assert not consistency_holds(**proof | {"old_size": new, "new_size": old}), (old, new)
        if 0 < old < new:
            assert not consistency_holds(**proof | {"new_root": leaf_hash(b"rewritten")}), (old, new)
            assert not consistency_holds(**proof | {"path": []}), (old, new)


def test_a_rewritten_leaf_breaks_the_consistency_with_what_was_seen_before() -> None:
    before, after = Tree(numbered(5)), Tree([b"rewritten", *numbered(9)[1:]])
    assert not consistency_holds(
        old_size=5, old_root=before.root(), new_size=9, new_root=after.root(), path=after.consistency(5)
    )


def test_proofs_of_a_hundred_thousand_leaves_take_as_many_hashes_as_the_tree_has_levels() -> None:
    tree = Tree(numbered(100_000))
    assert len(tree) == 100_000
    assert len(tree.inclusion(12_345)) == 17
    assert consistency_holds(
        old_size=77_777,
        old_root=tree.root(77_777),
        new_size=100_000,
        new_root=tree.root(),
        path=tree.consistency(77_777),
    )


def test_what_a_tree_never_had_is_an_error() -> None:
    tree = Tree(numbered(3))
    assert tree.append(b"fourth") == 3
    for ask in (
        lambda: tree.root(5),
        lambda: tree.root(-1),
        lambda: tree.inclusion(4),
        lambda: tree.inclusion(-1),
        lambda: tree.inclusion(2, 2),
        lambda: tree.consistency(5),
        lambda: tree.consistency(3, 2),
        lambda: tree.leaf_hash(4),
        lambda: tree.leaf_hash(-1),
    ):
        with pytest.raises(IndexError):
            ask()


# --- the texts of the log -------------------------------------------------------------------------------------------

PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
KEY = NoteKey(name="example.com/log", public_key=PRIVATE.public_key().public_bytes_raw())


def note_of(tree: Tree, key: NoteKey = KEY) -> str:
    checkpoint = Checkpoint(origin=key.name, size=len(tree), root=tree.root())
    return sign_checkpoint(checkpoint, key, PRIVATE.sign)


def test_a_log_key_is_read_as_other_implementations_write_it() -> None:
    """The key of the Go package `note`'s own documentation: its id is checked against its name and bytes."""
    text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    key = NoteKey.parse(text)
    assert (key.name, key.key_id.hex(), str(key)) == ("PeterNeumann", "c74f20a3", text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name+00000000",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "Mallory+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ä",
    ],
)
def test_a_log_key_whose_id_is_of_another_key_is_refused(text: str) -> None:
    with pytest.raises(LogProofError):
        NoteKey.parse(text)


def test_a_checkpoint_is_a_signed_note_of_origin_size_and_root() -> None:
    note = note_of(Tree(REFERENCE_LEAVES))
    origin, size, root, blank, signature, end = note.split("\n")
    assert (origin, size, blank, end) == ("example.com/log", "8", "", "")
    assert root == "XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg="
    assert signature.startswith("— example.com/log ")
    assert open_checkpoint(note, KEY) == Checkpoint(
        origin="example.com/log", size=8, root=bytes.fromhex(REFERENCE_ROOTS[8])
    )


def test_signatures_of_witnesses_are_ignored() -> None:
    note = note_of(Tree(numbered(3))) + "— witness.example AAAAAAAA\n— not a signature line\n"
    assert open_checkpoint(note, KEY).size == 3


@pytest.mark.parametrize(
    ("old", "new"),
    [("\n3\n", "\n4\n"), ("\n3\n", "\n03\n"), ("— example.com/log", "— other"), ("\n\n", "\n"), ("example", "elpmaxe")],
)
def test_a_changed_checkpoint_is_refused(old: str, new: str) -> None:
    note = note_of(Tree(numbered(3)))
    with pytest.raises(LogProofError):
        open_checkpoint(note.replace(old, new), KEY)


def test_a_proof_reads_back_and_holds_for_its_leaf_alone() -> None:
    tree = Tree(numbered(7))
    text = str(InclusionProof(index=4, path=tuple(tree.inclusion(4)), note=note_of(tree)))
    assert text.startswith("c2sp.org/tlog-proof@v1\nindex 4\n")
    assert InclusionProof.parse(text).check(b"leaf 4", KEY).size == 7
    with pytest.raises(LogProofError, match="do not lead"):
        InclusionProof.parse(text).check(b"leaf 5", KEY)


def test_a_proof_of_the_only_leaf_has_no_hashes() -> None:
    tree = Tree(numbered(1))
    text = str(InclusionProof(index=0, path=(), note=note_of(tree)))
    assert text.startswith("c2sp.org/tlog-proof@v1\nindex 0\n\nexample.com/log\n1\n")
    assert InclusionProof.parse(text).check(b"leaf 0", KEY).size == 1


def test_extra_data_of_a_proof_is_ignored() -> None:
    tree = Tree(numbered(2))
    proof = InclusionProof(index=1, path=tuple(tree.inclusion(1)), note=note_of(tree))
    extended = str(proof).replace("\nindex", "\nextra AAAA\nindex", 1)
    assert InclusionProof.parse(extended) == proof


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c2sp.org/tlog-proof@v2\nindex 0\n\n",
        "c2sp.org/tlog-proof@v1\n\n",
        "c2sp.org/tlog-proof@v1\n0\n\n",
        "c2sp.org/tlog-proof@v1\nindex 01\n\n",
        "c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n\n",
        "c2sp.org/tlog-proof@v1\nindex 0\nå\n\n",
    ],
)
def test_what_is_no_proof_is_refused(text: str) -> None:
    with pytest.raises(LogProofError):
        InclusionProof.parse(text)
