"""Secrets that a specification names instead of holding them, and which of them the operator lets jobs have.

A value of `env` of the form `secret:env:NAME` stands for a variable of the server's environment, and one of the form
`secret:file:/absolute/path` for the content of a file. That is all that is ever stored of it.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from jobledger_server.core.errors import Reason, ServiceError, invalid
from jobledger_server.core.paths import allowed_path

FROM_ENVIRONMENT, FROM_FILE = "secret:env:", "secret:file:"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class AllowedSecrets(NamedTuple):
    """What jobs may refer to: variables of the server's environment; files, and directories with all below them."""

    variables: frozenset[str] = frozenset()
    places: tuple[Path, ...] = ()

    @classmethod
    def of(cls, items: Iterable[str]) -> "AllowedSecrets":
        """From names of variables and absolute paths.

        Raises:
            ValueError: an item is neither; the message names it.
        """
        items = tuple(items)
        places = tuple(Path(item) for item in items if item.startswith("/"))
        variables = frozenset(item for item in items if not item.startswith("/"))
        for name in variables:
            if not VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} is neither the name of a variable nor an absolute path")
        return cls(variables, places)


NO_SECRETS = AllowedSecrets()


def is_reference(value: str) -> bool:
    """Whether a value of `env` stands for a secret, rightly spelled or not."""
    return value.startswith((FROM_ENVIRONMENT, FROM_FILE))


def references(env: Mapping[str, str]) -> dict[str, str]:
    """The references in `env`, by the variables that they are for."""
    return {name: value for name, value in env.items() if is_reference(value)}


def variable_of(reference: str, allowed: AllowedSecrets, field: str) -> str | None:
    """The variable of the server's environment that a reference names; None where it names a file.

    Raises:
        ServiceError: VALIDATION for one that is no name; FORBIDDEN for one that jobs may not have.
    """
    if not reference.startswith(FROM_ENVIRONMENT):
        return None
    name = reference.removeprefix(FROM_ENVIRONMENT)
    if not VARIABLE.fullmatch(name):
        raise invalid(field, f"{FROM_ENVIRONMENT} must be followed by the name of a variable")
    if name not in allowed.variables:
        raise ServiceError(
            Reason.ERROR_REASON_FORBIDDEN,
            f"{field}: jobs may not refer to the variable {name}. The operator allows it by the setting `secrets`",
            metadata={"variable": name},
        )
    return name


def file_of(reference: str, allowed: AllowedSecrets, field: str) -> Path:
    """The file that a reference names, without links.

    Raises:
        ServiceError: VALIDATION, PATH_NOT_ALLOWED or PATH_TRAVERSAL, as for `allowed_path`.
    """
    try:
        return allowed_path(reference.removeprefix(FROM_FILE), allowed.places, field)
    except ServiceError as error:
        if error.reason != Reason.ERROR_REASON_PATH_NOT_ALLOWED:
            raise
        raise ServiceError(
            error.reason, f"{field}: jobs may not refer to that file. The operator allows it by the setting `secrets`"
        ) from None


def check_references(env: Mapping[str, str], allowed: AllowedSecrets) -> None:
    """Refuses references that are misspelled or not allowed. Whether there is such a secret shows at the start.

    Raises:
        ServiceError: VALIDATION, FORBIDDEN, PATH_NOT_ALLOWED or PATH_TRAVERSAL; the message names the variable.
    """
    for name, reference in references(env).items():
        field = f"spec.env[{name}]"
        if variable_of(reference, allowed, field) is None:
            file_of(reference, allowed, field)
