"""Merkle trees as in RFC 6962 and RFC 9162, over SHA-256: how hashes are made, and how proofs are checked."""

import hashlib
from collections.abc import Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()


def leaf_hash(leaf: bytes) -> bytes:
    """Hash of a leaf, 32 bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node, 32 bytes, from those of its children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def inclusion_holds(*, hashed_leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` proves that the leaf is at `index` (from 0) of the tree of `size` leaves with this root.

    RFC 9162, section 2.1.3.2, whose names `fn` and `sn` are kept.
    """
    # Nothing else is a hash of a leaf; two of them that are empty would be equal.
    if not 0 <= index < size or len(hashed_leaf) != HASH_BYTES:
        return False
    fn, sn, computed = index, size - 1, hashed_leaf
    for sibling in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            computed = node_hash(sibling, computed)
            fn, sn = _up_to_left_sibling(fn, sn)
        else:
            computed = node_hash(computed, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and computed == root


def consistency_holds(*, old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` proves that the new tree begins with all the leaves of the old one, in their order.

    RFC 9162, section 2.1.4.2. It leaves open what an empty old tree is: here, any tree begins with it.
    """
    if not 0 <= old_size <= new_size:
        return False
    if old_size == 0 and old_root != EMPTY_ROOT:
        return False
    if old_size == new_size:
        return not path and old_root == new_root
    if old_size == 0:
        return not path
    # A complete old tree is a node of the new one; its hash is known and left out of the proof.
    hashes = [old_root, *path] if old_size & (old_size - 1) == 0 else [*path]
    return bool(hashes) and _both_roots_follow(hashes, old_size - 1, new_size - 1, old_root, new_root)


def _both_roots_follow(hashes: Sequence[bytes], fn: int, sn: int, old_root: bytes, new_root: bytes) -> bool:
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            fn, sn = _up_to_left_sibling(fn, sn)
        else:
            new = node_hash(new, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and old == old_root and new == new_root


def _up_to_left_sibling(fn: int, sn: int) -> tuple[int, int]:
    """Skips the levels at which a node on the right edge has no sibling."""
    while fn and not fn & 1:
        fn, sn = fn >> 1, sn >> 1
    return fn, sn
