"""The frontier is the tree, as far as appending and the root go."""

import hashlib

import pytest
from jobledger_server.core.frontier import Frontier
from jobledger_server.core.merkle import Tree


def test_its_root_is_that_of_the_tree_at_every_size_also_where_it_was_taken_up_again() -> None:
    tree, frontier = Tree(), Frontier()
    assert frontier.root() == tree.root()
    for number in range(200):
        leaf = hashlib.sha256(str(number).encode()).digest()
        tree.append(leaf)
        frontier = Frontier(len(frontier), frontier.peaks)
        frontier.append(leaf)
        assert len(frontier) == len(tree)
        assert frontier.root() == tree.root()


def test_a_copy_goes_its_own_way() -> None:
    first = Frontier()
    first.append(b"a")
    second = first.copy()
    second.append(b"b")
    assert (len(first), len(second)) == (1, 2)
    assert first.root() == Tree([b"a"]).root()


def test_peaks_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="3 leaves has 2 complete subtrees, not 1"):
        Frontier(3, [b"x" * 32])
