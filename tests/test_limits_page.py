"""The page of limits says what the code does."""

import importlib
import re
from functools import reduce
from pathlib import Path

from jobledger_server.api.grpc_server import OPTIONS

PAGE = Path(__file__).parents[1] / "server" / "docs" / "limits.md"
ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?P<value>[0-9]+)[^|]* \| [^|]* \| (?P<where>[^|]+) \|$", re.MULTILINE)
OF_AIOHTTP = {"aiohttp's `max_line_size`, `max_field_size`": 8190, "aiohttp's `max_headers`": 128}


def value_of(where: str) -> float:
    """What a name stands for: an option of gRPC, an attribute below a module, the default of a field."""
    options = dict(OPTIONS)
    if where in options:
        return options[where]
    parts = where.split(".")
    depth = next(count for count in range(len(parts), 0, -1) if importable(".".join(parts[:count])))
    module = importlib.import_module(".".join(parts[:depth]))
    if len(parts) - depth == 2:
        return float(getattr(module, parts[-2]).__dataclass_fields__[parts[-1]].default)
    return float(reduce(getattr, parts[depth:], module))


def importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True


def test_the_page_of_limits_has_the_values_of_the_code() -> None:
    rows = list(ROW.finditer(PAGE.read_text()))
    assert len(rows) > 20
    wrong = {
        row["what"]: row["value"]
        for row in rows
        if row["where"] not in OF_AIOHTTP and float(row["value"]) != value_of(row["where"].strip("`"))
    }
    assert wrong == {}


def test_every_option_of_grpc_that_limits_is_on_the_page() -> None:
    flags = {"grpc.so_reuseport", "grpc.keepalive_permit_without_calls"}
    told = {row["where"].strip("`") for row in ROW.finditer(PAGE.read_text())}
    assert {name for name, _ in OPTIONS} - flags <= told


def test_what_the_library_limits_by_itself_is_what_the_page_says() -> None:
    from inspect import signature

    from aiohttp import web

    defaults = {name: it.default for name, it in signature(web.RequestHandler.__init__).parameters.items()}
    assert (defaults["max_line_size"], defaults["max_field_size"], defaults["max_headers"]) == (8190, 8190, 128)
