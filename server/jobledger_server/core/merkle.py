"""The Merkle tree over the log's leaves (RFC 6962, RFC 9162): roots and proofs for any size that it ever had.

Checking proofs needs no tree: see `jobledger.merkle`.
"""

from collections.abc import Iterable

from jobledger.merkle import EMPTY_ROOT, leaf_hash, node_hash


class Tree:
    """Grows by appending; answers in O(log n). Keeps two hashes of 32 bytes for each leaf, in memory."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        # _levels[k][i] is the hash of the complete subtree over the leaves from i * 2^k up to (i + 1) * 2^k.
        self._levels: list[list[bytes]] = [[]]
        for leaf in leaves:
            self.append(leaf)

    def __len__(self) -> int:
        return len(self._levels[0])

    def append(self, leaf: bytes) -> int:
        """Adds a leaf. Returns its index, from 0."""
        completed = leaf_hash(leaf)
        for level in self._levels:
            level.append(completed)
            if len(level) % 2:
                return len(self) - 1
            completed = node_hash(level[-2], level[-1])
        self._levels.append([completed])
        return len(self) - 1

    def leaf_hash(self, index: int) -> bytes:
        """Hash of a leaf, 32 bytes.

        Raises:
            IndexError: there is no such leaf.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"no leaf {index} in a tree of {len(self)}")
        return self._levels[0][index]

    def root(self, size: int | None = None) -> bytes:
        """Root over the first `size` leaves, 32 bytes; over all by default.

        Raises:
            IndexError: the tree has fewer leaves.
        """
        size = self._size(size)
        return self._hash(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """Hashes that lead from a leaf up to the root over the first `size` leaves.

        Raises:
            IndexError: there are fewer leaves.
        """
        size = self._size(size)
        if not 0 <= index < size:
            raise IndexError(f"no leaf {index} in a tree of {size}")
        path: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._hash(middle, end))
                end = middle
            else:
                path.append(self._hash(start, middle))
                start = middle
        return path[::-1]

    def consistency(self, old_size: int, size: int | None = None) -> list[bytes]:
        """Hashes that show that the first `size` leaves begin with the first `old_size`.

        Raises:
            IndexError: there are fewer leaves, or the old size is not among those before.
        """
        size = self._size(size)
        if not 0 <= old_size <= size:
            raise IndexError(f"a tree of {size} never had {old_size} leaves")
        if old_size in (0, size):
            return []
        path: list[bytes] = []
        start, end = 0, size
        while old_size != end:
            middle = start + _split(end - start)
            if old_size <= middle:
                path.append(self._hash(middle, end))
                end = middle
            else:
                path.append(self._hash(start, middle))
                start = middle
        # The old root itself is left out: who checks the proof has it.
        own = [] if start == 0 else [self._hash(start, end)]
        return [*own, *path[::-1]]

    def _size(self, size: int | None) -> int:
        if size is None:
            return len(self)
        if not 0 <= size <= len(self):
            raise IndexError(f"the tree has {len(self)} leaves, not {size}")
        return size

    def _hash(self, start: int, end: int) -> bytes:
        """Hash of the node over the leaves from `start` up to `end`, which are such that the tree has that node."""
        complete: list[bytes] = []
        while start < end:
            level = (end - start).bit_length() - 1
            complete.append(self._levels[level][start >> level])
            start += 1 << level
        hashed = complete.pop()
        while complete:
            hashed = node_hash(complete.pop(), hashed)
        return hashed


def _split(count: int) -> int:
    """The largest power of two that is smaller than `count`, which is at least 2."""
    return 1 << (count - 1).bit_length() - 1
