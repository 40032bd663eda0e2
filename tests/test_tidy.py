"""Style as a test: sizes, bans, and documents that keep up with the code."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from jobledger_server.config import Settings

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "server" / "jobledger_server"
HAND_WRITTEN = ("clients", "server", "gateway_http", "tests")
GENERATED = ("clients/python/jobledger/v1/", "clients/python/buf/")
MOST_LINES, MOST_FUNCTION_LINES = 350, 60

# Tasks belong to `service.tasks.Tasks`, which awaits them and logs their faults; these have an owner of their own.
TASK_OWNERS = {
    "server/jobledger_server/service/tasks.py": "is the owner",
    "server/jobledger_server/core/changes.py": "changes, kept until they are made and awaited before the store closes",
    "server/jobledger_server/api/inprocess.py": "a call, kept by its channel and awaited by its caller",
    "server/jobledger_server/executors/local/executor.py": "followers, cancelled and awaited when the executor closes",
    "gateway_http/jobledger_gateway/feed.py": "the reader of a call, cancelled and awaited when the feed closes",
}

# The tests that the acceptance criteria name.
NAMED_TESTS = (
    "test_cancel_running_job",
    "test_cancel_queued_job",
    "test_cancel_completed_job_fails",
    "test_cancel_is_idempotent",
    "test_get_logs_pagination",
    "test_get_logs_level_filter",
    "test_get_logs_ordered_by_sequence",
    "test_get_artifacts_list",
    "test_get_receipt_completed_job",
    "test_get_receipt_running_job_fails",
)
DASHBOARD_CRITERIA = ("test_c01_", "test_c02_", "test_c03_", "test_c04_", "test_c05_")


def files(*tops: str) -> list[Path]:
    found = [path for top in tops for path in sorted((ROOT / top).rglob("*.py"))]
    return [path for path in found if not name_of(path).startswith(GENERATED) and "node_modules" not in path.parts]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def test_no_file_is_too_long() -> None:
    lengths = {name_of(path): path.read_text().count("\n") for path in files(*HAND_WRITTEN)}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_function_is_too_long() -> None:
    """Beyond 30 lines a function asks to be split; beyond 60 it must be."""
    long = [
        f"{name_of(path)}:{function.lineno} {function.name}: {length(function)} lines"
        for path in files(*HAND_WRITTEN)
        for function in functions(path)
        if length(function) > MOST_FUNCTION_LINES
    ]
    assert long == []


def test_every_module_says_what_it_is() -> None:
    """Tests for their part may speak through their names."""
    silent = [
        name_of(path)
        for path in files("clients", "server", "gateway_http")
        if tree_of(path).body and ast.get_docstring(tree_of(path)) is None
    ]
    assert silent == []


def test_tests_do_not_sleep() -> None:
    """A pause hides a race. `asyncio.sleep(0)` only lets others go on; `eventually` has a deadline."""
    sleeping = [
        f"{name_of(path)}:{call.lineno}"
        for path in files("tests")
        for call in calls(path)
        if ast.unparse(call.func) in ("time.sleep", "asyncio.sleep")
        and not (call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0)
        and not _within_eventually(path, call)
    ]
    assert sleeping == []


def _within_eventually(path: Path, call: ast.Call) -> bool:
    return any(
        function.name in ("eventually", "pace") and function.lineno <= call.lineno <= (function.end_lineno or 0)
        for function in functions(path)
    )


def test_every_task_has_an_owner() -> None:
    started = {
        name_of(path)
        for path in files("clients", "server", "gateway_http")
        for call in calls(path)
        if ast.unparse(call.func).endswith("create_task")
    }
    assert started == set(TASK_OWNERS)


def test_server_and_gateway_do_not_print() -> None:
    printing = [
        f"{name_of(path)}:{call.lineno}"
        for path in files("server", "gateway_http")
        for call in calls(path)
        if ast.unparse(call.func) == "print"
    ]
    assert printing == []


def imports(path: Path) -> Iterator[str]:
    """Modules that a file names, as far as the names tell."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(module: str) -> Iterator[Path]:
    """The files that importing a module of the server runs: its packages and its own."""
    parts = module.split(".")[1:]
    for count in range(len(parts) + 1):
        place = SERVER.joinpath(*parts[:count])
        yield from (path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file())


@pytest.mark.parametrize("start", ["shim", "nursery", "namespace_init", "self_check"])
def test_the_shim_takes_the_standard_library_alone(start: str) -> None:
    """It runs beside every job, where nothing else is loaded."""
    pending, seen, foreign = [SERVER / "executors" / "local" / f"{start}.py"], set[Path](), set[str]()
    while pending:
        path = pending.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in imports(path):
            package = module.partition(".")[0]
            if package == "jobledger_server":
                pending += sources(module)
            elif package not in sys.stdlib_module_names:
                foreign.add(f"{name_of(path)}: {module}")
    assert foreign == set()
    assert SERVER / "executors" / "local" / "process_tree.py" in seen, "the walk has lost its way"


def test_every_setting_is_documented() -> None:
    documents = "".join((ROOT / name).read_text() for name in ("README.md", "server/README.md"))
    for name in Settings.__dataclass_fields__:
        assert name in (Settings.__doc__ or ""), f"{name}: not in the docstring of Settings"
        assert name in documents or f"JOBLEDGER_{name.upper()}" in documents, f"{name}: in no README"


def test_the_gateways_page_names_each_of_its_files() -> None:
    _, _, section = (ROOT / "gateway_http" / "README.md").read_text().partition("## The way of a request through")
    named = set(re.findall("`([a-z_]+)`", section))
    modules = {path.stem for path in (ROOT / "gateway_http" / "jobledger_gateway").glob("*.py")}
    assert named == modules - {"__init__"}


def test_every_criterion_has_the_test_that_it_names() -> None:
    names = {function.name for path in files("tests/e2e") for function in functions(path)}
    assert set(NAMED_TESTS) - names == set()
    assert [begin for begin in DASHBOARD_CRITERIA if not any(name.startswith(begin) for name in names)] == []
