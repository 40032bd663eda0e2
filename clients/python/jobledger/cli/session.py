"""What the verbs share: finding the server, running on an event loop, failing with one line."""

import functools
import json
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec

import click

from jobledger.cli import output

if TYPE_CHECKING:
    from jobledger.client import Client
    from jobledger.errors import JobledgerError

P = ParamSpec("P")

NOT_VALID, USAGE, NO_ACCESS, REFUSED, TIME_IS_OVER, CANCELLED, NO_READER = 1, 2, 3, 4, 124, 130, 141

_CONNECTION = (
    click.option("--target", metavar="HOST:PORT", help="The server's gRPC address."),
    click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory of a server on this machine."),
    click.option("--token-file", type=click.Path(path_type=Path), help="File that holds the token alone."),
    click.option("--tls", is_flag=True, help="Encrypt, and trust the system's certificate authorities."),
    click.option("--ca-file", type=click.Path(path_type=Path), help="Encrypt, and trust those in this PEM file."),
    click.option("--cert-file", type=click.Path(path_type=Path), help="Show the certificate in this PEM file."),
    click.option("--key-file", type=click.Path(path_type=Path), help="The certificate's key, PEM."),
    click.option("--insecure", is_flag=True, help="Send the token in the clear to another machine."),
)

json_option = click.option("--json", "as_json", is_flag=True, help="JSON, as the REST API has it.")


def fail(message: str, code: int) -> NoReturn:
    """Ends the program with a message on stderr."""
    output.note(f"Error: {message}")
    raise click.exceptions.Exit(code)


def fail_with(error: "JobledgerError") -> NoReturn:
    """Ends the program with what the server or the SDK said: as JSON on stderr, where JSON was asked for."""
    context = click.get_current_context(silent=True)
    if context is not None and context.params.get("as_json"):
        told = {"error_code": error.error_code, "message": error.message, "details": dict(error.details)}
        output.note(json.dumps(told, ensure_ascii=False))
        raise click.exceptions.Exit(_exit_code(error))
    fail(_message(error), _exit_code(error))


def _message(error: "JobledgerError") -> str:
    """The error on one line, with those of its fields that the message does not name itself."""
    fields = [f"{item.field}: {item.description}" for item in error.fields if item.field not in error.message]
    return " ".join("; ".join([error.message, *fields]).split())


def _exit_code(error: "JobledgerError") -> int:
    from jobledger import errors

    match error:
        case errors.ValidationError():
            return USAGE
        case errors.SetupError() | errors.UnavailableError() | errors.DeadlineError() | errors.AuthenticationError():
            return NO_ACCESS
        case errors.PermissionDeniedError():
            return REFUSED if _asks_for_too_much(error) else NO_ACCESS
        case _:
            return REFUSED


def _asks_for_too_much(error: "JobledgerError") -> bool:
    """Whether it is what was asked for that nobody gets, a path or a secret, and not this token that may not ask."""
    return error.error_code in ("E_PATH_NOT_ALLOWED", "E_PATH_TRAVERSAL") or "variable" in error.details


def connected(verb: Callable[Concatenate["Client", P], Awaitable[int | None]]) -> Callable[..., None]:
    """Gives an asynchronous verb a client, and the options that say which server. What it returns is the exit code."""

    @functools.wraps(verb)
    def command(*args: P.args, **options: P.kwargs) -> None:
        connection = {name: options.pop(name) for name in _CONNECTION_NAMES}

        async def work() -> int | None:
            from jobledger.client import Client
            from jobledger.local_files import read_token

            token_file: Any = connection.pop("token_file")
            token = read_token(token_file) if token_file else None
            async with Client.connect(token=token, retry_for=2.0, **connection) as client:  # type: ignore[arg-type]
                return await verb(client, *args, **options)

        run_async(work())

    for option in reversed(_CONNECTION):
        command = option(command)
    return command


_CONNECTION_NAMES = ("target", "data_dir", "token_file", "tls", "ca_file", "cert_file", "key_file", "insecure")


def run_async(work: Coroutine[Any, Any, int | None]) -> None:
    """Runs a verb to its end and exits with its code.

    Raises:
        click.exceptions.Exit: with the code, where it is not 0.
    """
    import asyncio

    from jobledger.errors import JobledgerError

    try:
        code = asyncio.run(work) or 0
        output.flush()
    except JobledgerError as error:
        fail_with(error)
    except BrokenPipeError:
        output.abandon()
        code = NO_READER
    except KeyboardInterrupt:
        code = CANCELLED
    if code:
        raise click.exceptions.Exit(code)
