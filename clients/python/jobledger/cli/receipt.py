"""`jobledger receipt`: the record of a job, and whether it is to be believed."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobledger.cli import output
from jobledger.cli.default_group import DefaultGroup
from jobledger.cli.params import job_argument
from jobledger.cli.session import connected, fail

if TYPE_CHECKING:
    from jobledger.client import Client
    from jobledger.receipts import KeyEntry, VerificationReport

NOT_CHECKED, VERIFY_USAGE = 2, 3
MARKS = {"ok": "ok", "failed": "FAILED", "skipped": "skipped"}


class VerifyCommand(click.Command):
    """Exits with 3 where it is used wrongly, since 2 says that something could not be checked."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            error.show()
            raise click.exceptions.Exit(VERIFY_USAGE) from error


@click.group(name="receipt", cls=DefaultGroup, default="show")
def command() -> None:
    """Shows the receipt of a job that has ended, or checks one: receipt JOB, receipt verify ENVELOPE."""


@command.command(name="show")
@job_argument
@click.option(
    "--format",
    type=click.Choice(["json", "dsse", "proof"]),
    default="json",
    show_default=True,
    help="The receipt, the signed envelope around it, or the proof that it is in the log.",
)
@click.option("--output", "-o", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file.")
@click.option("--json", is_flag=True, expose_value=False, help="Changes nothing: a receipt is JSON.")
@connected
async def show(client: "Client", /, *, job_id: str, format: Any, to: Path | None) -> None:  # noqa: A002
    """Prints the stored bytes of a receipt, unchanged."""
    receipt = await client.receipt(job_id, format=format)
    _write(receipt, to)


def _write(receipt: bytes, to: Path | None) -> None:
    if to is not None:
        to.write_bytes(receipt)
        return
    sys.stdout.buffer.write(receipt)
    if sys.stdout.isatty():
        print()


@command.command(name="verify", cls=VerifyCommand)
@click.argument("envelope", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--keys", "keys_file", type=click.Path(path_type=Path), help="File of public keys to trust.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Trust the keys of the server here. Default: this machine's.",
)
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory of the job's outputs, to compare.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def verify(
    envelope: Path, keys_file: Path | None, data_dir: Path | None, artifacts: Path | None, as_json: bool
) -> None:
    """Checks a receipt offline: who signed it, and whether files are what it says.

    ENVELOPE is what `receipt JOB --format dsse` gives. Exit codes: 0 valid, 1 not valid, 2 something could not be
    checked, 3 wrong usage.
    """
    from jobledger.receipts import verify as check

    report = check(envelope.read_bytes(), keys=_keys(keys_file, data_dir), artifacts=artifacts)
    output.document(_as_json(report)) if as_json else _show(report)
    raise click.exceptions.Exit(report.exit_code)


def _keys(keys_file: Path | None, data_dir: Path | None) -> "dict[str, bytes | KeyEntry] | None":
    from jobledger.endpoint import default_data_dir
    from jobledger.receipts import KeysFileError, load_keys

    directory = data_dir or Path(os.environ.get("JOBLEDGER_DATA_DIR") or default_data_dir())
    own = directory / "keys" / "keys.json"
    path = keys_file or (own if data_dir or own.exists() else None)
    if path is None:
        return None
    try:
        return dict(load_keys(path))
    except (KeysFileError, OSError) as error:
        fail(f"The keys can't be read: {error}", NOT_CHECKED)


def _show(report: "VerificationReport") -> None:
    for check in report.checks:
        mark = MARKS[check.status]
        print(
            f"{output.coloured(mark.lower()) if mark == 'ok' else mark:8} {check.name}: {output.one_line(check.detail)}"
        )
    print({0: "VALID", 1: "NOT VALID", 2: "NOT CHECKED in full"}[report.exit_code])
    for caveat in report.caveats:
        print(f"note     {caveat}")


def _as_json(report: "VerificationReport") -> dict[str, Any]:
    checks = [{"name": check.name, "status": check.status, "detail": check.detail} for check in report.checks]
    return {"valid": report.exit_code == 0, "exit_code": report.exit_code, "checks": checks, "caveats": report.caveats}
