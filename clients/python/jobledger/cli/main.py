"""`jobledger`: finds the verb, runs it, and ends with an exit code that scripts can use."""

import importlib
import os
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import click

from jobledger.cli import output
from jobledger.cli.session import NO_READER, USAGE

# In the order of `jobledger --help`. Each is a module of this package with a `command`.
VERBS: Final = (
    "run",
    "ls",
    "get",
    "logs",
    "cancel",
    "delete",
    "wait",
    "input",
    "artifacts",
    "receipt",
    "events",
    "types",
    "status",
    "gc",
    "token",
    "audit",
    "completion",
    "demo",
)

# What the server's package offers, for `--help`.
SERVER_VERBS: Final = {
    "backup": "Copies an installation, which may be running.",
    "config": "Shows the server's settings, and where each comes from.",
    "gateway": "Serves the REST API for a server elsewhere.",
    "keys": "Shows, rotates and revokes the keys that sign receipts.",
    "recover": "Makes a lost database anew out of the archive of receipts.",
    "up": "Runs a server on this machine.",
}

EXIT_CODES: Final = """\b
Exit codes:
  0    done; for a job that was waited for: it completed
  1    the job failed without an exit code of its own; what was checked is not valid
  2    the command or the request is not right, or something on this machine is in its way
  3    the server can't be reached, or does not let you in
  4    the server refuses: no such job, already finished, a path or secret that jobs may not have, ...
  124  the time given with --timeout is over
  130  the job was cancelled, or Ctrl-C was pressed
A job that failed with an exit code of its own gives that one to `run --wait`, `run --follow` and `wait`.

\b
The server is found by --target, --data-dir, JOBLEDGER_TARGET, JOBLEDGER_DATA_DIR, or on this machine.
With TLS, --ca-file or JOBLEDGER_CA_FILE says whom to trust; --cert-file and --key-file, or JOBLEDGER_CERT_FILE and
JOBLEDGER_KEY_FILE, show who you are.
The token is found by --token-file, JOBLEDGER_TOKEN, JOBLEDGER_TOKEN_FILE, or, with a server on this machine and none
of them given, in its data directory.
"""


class VerbGroup(click.Group):
    """Loads a verb when it is used: those of this package, and those that others offer by entry point."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*VERBS, *sorted(_offered())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name in VERBS:
            command: click.Command = importlib.import_module(f"jobledger.cli.{cmd_name}").command
            return command
        entry = _offered().get(cmd_name)
        return OfferedVerb(entry) if entry else None


class OfferedVerb(click.Command):
    """A verb of another package. Its code loads when the verb is used, not to list it."""

    def __init__(self, entry: EntryPoint) -> None:
        super().__init__(entry.name, short_help=SERVER_VERBS.get(entry.name, f"Offered by {entry.module}."))
        self._entry = entry

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        return self._load().make_context(info_name, args, parent, **extra)

    def _load(self) -> click.Command:
        try:
            command: click.Command = self._entry.load()
        except ImportError as error:
            advice = "needs the server: pip install 'jobledger[server]'"
            raise click.ClickException(f"`jobledger {self.name}` {advice} ({error})") from error
        return command


def _offered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="jobledger.commands") if entry.name not in VERBS}


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"jobledger {version('jobledger')}")
        ctx.exit()


@click.group(cls=VerbGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def cli() -> None:
    """Run long jobs, watch them, and keep a signed receipt of each."""


def exit_code_of(run: Callable[[], object]) -> int:
    """Runs the command line and tells with which code to exit; what goes wrong becomes one line on stderr."""
    try:
        result = run()
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        # Nothing that click itself or a verb of the server's raises is about how a job ended.
        return USAGE if error.exit_code == 1 else error.exit_code
    except click.Abort:
        return 130
    except BrokenPipeError:
        output.abandon()
        return NO_READER
    except OSError as error:
        # Else it would be tried again at the exit.
        output.abandon()
        output.note(f"Error: {error.filename or 'The output'} can't be used: {error.strerror}")
        return USAGE
    return result if isinstance(result, int) else 0


def main() -> None:
    """Entry point of the program."""
    # What gRPC's core has to say about connections goes to stderr otherwise, between the lines of the program.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    sys.exit(exit_code_of(lambda: cli.main(prog_name="jobledger", standalone_mode=False)))
