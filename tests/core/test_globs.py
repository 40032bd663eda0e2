"""Globs, held against the plainest matcher that there is."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger_server.core.globs import matches


@pytest.mark.parametrize(
    ("glob", "named", "other"),
    [
        ("*", ["a", "a.txt", ".hidden"], ["a/b", "a/"]),
        ("*.txt", ["a.txt", ".txt"], ["a.txtx", "d/a.txt", "a.TXT"]),
        ("**/*.txt", ["a.txt", "d/a.txt", "d/e/a.txt"], ["a.csv", "d/a.csv"]),
        ("**", ["a", "d/e/a"], []),
        ("d/**", ["d/a", "d/e/a"], ["d", "dd/a", "a"]),
        ("d/**/a", ["d/a", "d/e/a", "d/e/f/a"], ["d/b", "da", "e/d/a"]),
        ("**.txt", ["a.txt", "d/a.txt"], ["a.txt/b"]),
        ("a?c", ["abc", "a.c", "aéc"], ["ac", "a/c", "abbc"]),
        ("[ab]+(c)", ["[ab]+(c)"], ["a", "b", "abc"]),
        ("a\nb*", ["a\nbc"], ["a b"]),
        ("", [""], ["a"]),
    ],
)
def test_a_glob_names_what_it_says(glob: str, named: list[str], other: list[str]) -> None:
    assert [path for path in named if not matches(path, glob)] == []
    assert [path for path in other if matches(path, glob)] == []


def naive(path: str, glob: str) -> bool:
    """The definition, spelled out: each piece of the glob tries every beginning of the path that it may stand for."""
    if not glob:
        return not path
    if glob.startswith("**/"):
        part, slash, rest = path.partition("/")
        return naive(path, glob[3:]) or (bool(part and slash) and naive(rest, glob))
    if glob.startswith("**"):
        return any(naive(path[taken:], glob[2:]) for taken in range(len(path) + 1))
    if glob[0] == "*":
        part = path.partition("/")[0]
        return any(naive(path[taken:], glob[1:]) for taken in range(len(part) + 1))
    return bool(path) and (path[0] == glob[0] or (glob[0] == "?" and path[0] != "/")) and naive(path[1:], glob[1:])


PATHS = st.lists(st.text("ab.", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)
GLOBS = st.lists(st.sampled_from(["a", "b", ".", "/", "*", "?", "**", "**/"]), max_size=8).map("".join)


@given(path=PATHS, glob=GLOBS)
def test_the_matcher_agrees_with_the_plainest_one(path: str, glob: str) -> None:
    assert matches(path, glob) == naive(path, glob)


@pytest.mark.parametrize(
    ("path", "glob"), [("a/" * 500 + "y", "**/" * 300 + "x"), ("a" * 1000, "*a" * 400 + "b"), ("a" * 1000, "**a" * 300)]
)
def test_no_glob_takes_long(path: str, glob: str) -> None:
    """Globs come from callers. As regular expressions, these would take longer than anybody waits."""
    began = time.process_time()
    matches(path, glob)
    assert time.process_time() - began < 0.5
