"""The threat model names a test for each attack, and each of them exists."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "THREAT_MODEL.md"
ROW = re.compile(r"^\| (\d+) \|(?P<attack>[^|]+)\|(?P<answer>[^|]+)\|(?P<tests>[^|]+)\|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.(?:py|jsonl))::(\w+)`")
ATTACKS = 30
UNPACKING = {"tarfile", "zipfile", "lzma", "bz2", "gzip"}


def rows() -> list[re.Match[str]]:
    return list(ROW.finditer(PAGE.read_text()))


@cache
def names_in(file: str) -> set[str]:
    """The names of its functions, or of its vectors. A function within another one would not run."""
    path = ROOT / file
    if not path.is_file():
        return set()
    if path.suffix == ".jsonl":
        return {json.loads(line)["id"] for line in path.read_text().splitlines()}
    top = ast.parse(path.read_text()).body
    names = (node.name for node in top if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {name for name in names if name.startswith("test_")}


def test_every_attack_has_a_row_with_its_answer() -> None:
    found = rows()
    assert [int(row[1]) for row in found] == list(range(1, ATTACKS + 1))
    assert all(row["attack"].strip() and row["answer"].strip() for row in found)


def test_every_attack_has_a_test_that_exists() -> None:
    named = {int(row[1]): TEST.findall(row["tests"]) for row in rows()}
    assert [number for number, tests in named.items() if not tests] == [], "attacks without a test"
    missing = [f"{file}::{test}" for tests in named.values() for file, test in tests if test not in names_in(file)]
    assert missing == []
    assert [number for number, tests in named.items() if len(set(tests)) < len(tests)] == [], "a test named twice"


def test_nothing_else_stands_among_the_tests() -> None:
    """A name that is misspelled is no test, and would not be missed."""
    rest = {int(row[1]): TEST.sub("", row["tests"]).strip() for row in rows()}
    assert {number: text for number, text in rest.items() if text} == {}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
            yield from ("tarfile" for alias in node.names if alias.name == "unpack_archive")
        elif isinstance(node, ast.Attribute) and node.attr == "unpack_archive":
            yield "tarfile"


def test_the_server_unpacks_no_archive() -> None:
    """What a client or a job sends as one stays one: so nothing of its paths, links or sizes can do harm."""
    trees = [ROOT / "server", ROOT / "gateway_http"]
    unpacking = {
        path.relative_to(ROOT).as_posix(): UNPACKING & set(imported(path))
        for tree in trees
        for path in tree.rglob("*.py")
    }
    assert len(unpacking) > 100
    assert {name: modules for name, modules in unpacking.items() if modules} == {}
