"""Jobledger's SDK: run long jobs, watch them, and keep a signed receipt of each.

Names load when they are first used, so that those who need only the stubs (`jobledger.v1`) or `jobledger --help` do not
pay for gRPC.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobledger.client import Client
    from jobledger.endpoint import Endpoint, resolve_endpoint
    from jobledger.errors import (
        AuthenticationError,
        ConflictError,
        DataLossError,
        DeadlineError,
        InternalError,
        JobledgerError,
        NotFoundError,
        OutOfRangeError,
        PermissionDeniedError,
        RateLimitedError,
        SetupError,
        UnavailableError,
        UnsupportedError,
        ValidationError,
    )
    from jobledger.spec import SpecFields, job_spec
    from jobledger.sync_client import SyncClient
    from jobledger.values import is_terminal, short_name

__all__ = [
    "AuthenticationError",
    "Client",
    "ConflictError",
    "DataLossError",
    "DeadlineError",
    "Endpoint",
    "InternalError",
    "JobledgerError",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "RateLimitedError",
    "SetupError",
    "SpecFields",
    "SyncClient",
    "UnavailableError",
    "UnsupportedError",
    "ValidationError",
    "is_terminal",
    "job_spec",
    "resolve_endpoint",
    "short_name",
]

_HOMES = {
    "Client": "client",
    "Endpoint": "endpoint",
    "SpecFields": "spec",
    "SyncClient": "sync_client",
    "is_terminal": "values",
    "job_spec": "spec",
    "resolve_endpoint": "endpoint",
    "short_name": "values",
}


def __getattr__(name: str) -> object:
    """Loads a public name from the module that it lives in."""
    if name not in __all__:
        raise AttributeError(f"module 'jobledger' has no attribute {name!r}")
    home = import_module(f"jobledger.{_HOMES.get(name, 'errors')}")
    value = globals()[name] = getattr(home, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
