"""What references to secrets stand for, looked up when an attempt starts and kept nowhere."""

import errno
from collections.abc import Mapping
from pathlib import Path

from jobledger_server.core.errors import ServiceError
from jobledger_server.core.secret_references import AllowedSecrets, file_of, references, variable_of
from jobledger_server.core.specs import MAX_ARGUMENT_BYTES, MAX_STRING_BYTES

# What is shorter can't be hidden: it would be found where nobody meant it, and would soon be guessed.
SHORTEST = 8
# Why a file can't be read, whenever one tries; anything else may pass.
LASTING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP})


class SecretError(Exception):
    """A secret can't be had. The message names the reference and says why; it never holds a value."""


def secret_values(env: Mapping[str, str], environment: Mapping[str, str], allowed: AllowedSecrets) -> dict[str, str]:
    """The value of each reference in `env`, by the variable that it is for. Bytes beyond UTF-8 as in `os.fsdecode`.

    Args:
        environment: the server's.
        allowed: what jobs may refer to now; it may be less than when the job was accepted.

    Raises:
        SecretError: a secret is missing, not allowed any more, or can't be passed on or hidden.
        OSError: a file can't be read just now.
    """
    values = {
        name: _value(reference, environment, allowed, f"spec.env[{name}]")
        for name, reference in references(env).items()
    }
    if sum(map(len, values.values())) > MAX_ARGUMENT_BYTES:
        raise SecretError(f"spec.env: its secrets take more than {MAX_ARGUMENT_BYTES} bytes together")
    return values


def _value(reference: str, environment: Mapping[str, str], allowed: AllowedSecrets, field: str) -> str:
    try:
        variable = variable_of(reference, allowed, field)
        file = None if variable else file_of(reference, allowed, field)
    except ServiceError as error:
        raise SecretError(error.message) from None
    if variable and variable not in environment:
        raise SecretError(f"{field}: {reference} is not set in the server's environment")
    value = environment[variable] if variable else _read(file, f"{field}: {reference}") if file else ""
    problem = _problem(value)
    if problem:
        raise SecretError(f"{field}: {reference} {problem}")
    return value


def _read(file: Path, named: str) -> str:
    """Content without the newline at its end, of a little more than may be at most."""
    try:
        if not file.is_file():
            raise SecretError(f"{named} is not there, or no file")
        with file.open("rb") as source:
            content = source.read(MAX_STRING_BYTES + 2)
    except OSError as error:
        if error.errno not in LASTING:
            raise
        raise SecretError(f"{named} can't be read: {error.strerror}") from None
    return content.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")


def _problem(value: str) -> str:
    """Why a job can't have this value; empty where it can."""
    size = len(value.strip().encode("utf-8", "surrogateescape"))
    if size < SHORTEST:
        return f"has {size} bytes: what is shorter than {SHORTEST} can't be kept out of the log"
    if size > MAX_STRING_BYTES:
        return f"has more than {MAX_STRING_BYTES} bytes, which is all that a process takes in one variable"
    if "\0" in value:
        return "contains NUL, which no variable can hold"
    return ""
