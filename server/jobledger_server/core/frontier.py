"""The right edge of a Merkle tree (RFC 6962): all that it takes to append leaves and to tell the root.

`core.merkle.Tree` has two hashes for each leaf, and proofs; this has one for each complete subtree, some twenty in all.
"""

from collections.abc import Sequence

from jobledger.merkle import EMPTY_ROOT, leaf_hash, node_hash


class Frontier:
    """The hashes (32 bytes each) of the largest complete subtrees, from left to right.

    Raises:
        ValueError: a tree of `size` leaves has another number of them.
    """

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        if size.bit_count() != len(peaks):
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} complete subtrees, not {len(peaks)}")
        self._size = size
        self._peaks = list(peaks)

    def __len__(self) -> int:
        return self._size

    @property
    def peaks(self) -> Sequence[bytes]:
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> None:
        hashed, size = leaf_hash(leaf), self._size
        while size & 1:
            hashed, size = node_hash(self._peaks.pop(), hashed), size >> 1
        self._peaks.append(hashed)
        self._size += 1

    def root(self) -> bytes:
        """Root over all leaves, 32 bytes."""
        if not self._peaks:
            return EMPTY_ROOT
        hashed = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            hashed = node_hash(peak, hashed)
        return hashed

    def copy(self) -> "Frontier":
        return Frontier(self._size, self._peaks)
