"""`jobledger receipt`: the record of a job, and whether it is to be believed."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobledger.cli import output
from jobledger.cli.default_group import DefaultGroup
from jobledger.cli.params import job_argument
from jobledger.cli.session import USAGE, connected, fail, json_option

if TYPE_CHECKING:
    from jobledger.client import Client
    from jobledger.receipts import LogProof, VerificationReport
    from jobledger.signing_keys import Keys
    from jobledger.v1.receipt_service_pb2 import Checkpoint, ConsistencyProof

NOT_CHECKED, VERIFY_USAGE = 2, 3
A_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
# Of `verify`: one that is not there is no wrong usage, but keeps something from being checked.
ANY_PATH = click.Path(path_type=Path)
STDIN = Path("-")
EXIT_CODES = (
    "Exit codes: 0 valid; 1 not valid, a check FAILED; 2 nothing failed, but something could not be checked: a file or"
    " a key is missing, can't be read, or is not what it should be; 3 wrong usage: the command line itself is wrong."
)
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
    if sys.stdout.isatty() and not receipt.endswith(b"\n"):
        print()


@command.command(name="checkpoint")
@click.option("--output", "-o", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file.")
@json_option
@connected
async def checkpoint(client: "Client", /, *, to: Path | None, as_json: bool) -> None:
    """Prints the signed state of the log of receipts: who keeps it can tell later whether the log has lost one."""
    told = await client.checkpoint()
    _write(_json(told) if as_json else told.note.encode(), to)


@command.command(name="consistency")
@click.option("--checkpoint", "kept", type=A_FILE, required=True, help="The checkpoint that you kept.")
@click.option("--proof", type=A_FILE, help="A receipt's proof. Default: the log of now.")
@click.option("--output", "-o", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file.")
@click.option("--json", "as_json", is_flag=True, help="Changes nothing but how an error is told: a proof is JSON.")
@connected
async def consistency(
    client: "Client",
    /,
    *,
    kept: Path,
    proof: Path | None,
    to: Path | None,
    as_json: bool,  # noqa: ARG001 - `fail_with` asks for it
) -> None:
    """Prints the proof that the log of a receipt's proof still begins with what a checkpoint tells."""
    from jobledger.tlog import InclusionProof, note_of

    sizes = [_size(kept, note_of)]
    if proof is not None:
        sizes.append(_size(proof, lambda text: InclusionProof.parse(text).note))
    old, new = (min(sizes), max(sizes)) if proof is not None else (sizes[0], None)
    _write(_json(await client.consistency_proof(old, new)), to)


def _size(path: Path, note_in: Callable[[str], str]) -> int:
    from jobledger.tlog import Checkpoint, LogProofError

    try:
        return Checkpoint.parse(note_in(_text(path, USAGE))).size
    except LogProofError as error:
        fail(f"{path} has no checkpoint: {error}", USAGE)


def _json(told: "Checkpoint | ConsistencyProof") -> bytes:
    from jobledger.cli.plain import plain

    return json.dumps(plain(told)).encode() + b"\n"


@command.command(name="verify", cls=VerifyCommand, epilog=EXIT_CODES)
@click.argument("envelope", type=ANY_PATH)
@click.option(
    "--keys", "keys_file", type=ANY_PATH, help="File of public keys to trust: keys.json, or /v1/receipts/keys."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Trust the keys of the server here. Default: this machine's.",
)
@click.option("--job", "job_id", metavar="JOB", help="The job that it should be of.")
@click.option("--artifacts", type=ANY_PATH, help="Directory of the job's outputs, to compare.")
@click.option("--proof", type=ANY_PATH, help="Proof that the log has it: receipt JOB --format proof.")
@click.option("--checkpoint", type=ANY_PATH, help="A checkpoint of the log that you kept: receipt checkpoint.")
@click.option("--consistency", type=ANY_PATH, help="What connects proof and checkpoint: receipt consistency.")
@click.option(
    "--log-key", type=ANY_PATH, help="The log's public key. Default: that in the file of keys, or log.vkey beside it."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def verify(
    envelope: Path,
    keys_file: Path | None,
    data_dir: Path | None,
    job_id: str | None,
    artifacts: Path | None,
    as_json: bool,
    **log: Path | None,
) -> None:
    """Checks a receipt offline: who signed it, whether files are what it says, and whether the log has it.

    ENVELOPE is what `receipt JOB --format dsse` gives; `-` reads it from standard input. Proof and checkpoint are read
    as text, or as the JSON in which the REST API answers them.
    """
    from jobledger.receipts import verify as check

    if artifacts is not None and not artifacts.is_dir():
        fail(f"{artifacts} is no directory", NOT_CHECKED)
    keys_path = _keys_path(keys_file, data_dir)
    report = check(
        _read(envelope),
        keys=_keys(keys_path),
        job_id=job_id,
        artifacts=artifacts,
        log_proof=_log_proof(keys_path, **log),
    )
    # In ASCII: JSON's own escapes leave out what steers a terminal above U+007F.
    print(json.dumps(_as_json(report), indent=2)) if as_json else _show(report)
    raise click.exceptions.Exit(report.exit_code)


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    except OSError as error:
        fail(f"{path} can't be read: {error.strerror}", NOT_CHECKED)


def _text(path: Path, code: int = NOT_CHECKED) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        fail(f"{path} can't be read: {error.strerror}", code)
    except UnicodeDecodeError:
        fail(f"{path} is no text in UTF-8", code)


def _keys_path(keys_file: Path | None, data_dir: Path | None) -> Path | None:
    from jobledger.endpoint import default_data_dir

    directory = data_dir or Path(os.environ.get("JOBLEDGER_DATA_DIR") or default_data_dir())
    own = directory / "keys" / "keys.json"
    return keys_file or (own if data_dir or own.exists() else None)


def _keys(path: Path | None) -> "Keys | None":
    from jobledger.receipts import KeysFileError, load_keys

    if path is None:
        return None
    try:
        return load_keys(path)
    except (KeysFileError, OSError) as error:
        fail(f"The keys can't be read: {error}", NOT_CHECKED)


def _log_proof(
    keys_path: Path | None,
    *,
    proof: Path | None,
    checkpoint: Path | None,
    consistency: Path | None,
    log_key: Path | None,
) -> "LogProof | None":
    """What is to be checked of the log; None where nothing was asked for."""
    from jobledger.receipts import Consistency, LogProof
    from jobledger.tlog import LogProofError

    if not (proof or checkpoint or consistency):
        return None
    key = _text(log_key) if log_key else _log_key(keys_path)
    try:
        parsed = Consistency.parse(_read(consistency)) if consistency else None
    except LogProofError as error:
        fail(f"{consistency}: {error}", NOT_CHECKED)
    text, kept = (_text(path) if path else None for path in (proof, checkpoint))
    return LogProof(text, key, kept, parsed)


def _log_key(keys_path: Path | None) -> str | None:
    """The log's key that came with the others."""
    from jobledger.receipts import load_log_key

    if keys_path is None:
        return None
    beside = keys_path.with_name("log.vkey")
    return load_log_key(keys_path) or (_text(beside) if beside.exists() else None)


def _show(report: "VerificationReport") -> None:
    for check in report.checks:
        mark = MARKS[check.status]
        shown = output.coloured(mark) if mark == "ok" else mark
        # Name and detail may be of a receipt that nobody has signed.
        print(f"{shown:8} {output.one_line(check.name)}: {output.one_line(check.detail)}")
    print({0: "VALID", 1: "NOT VALID", 2: "NOT CHECKED in full"}[report.exit_code])
    for caveat in report.caveats:
        print(f"note     {caveat}")


def _as_json(report: "VerificationReport") -> dict[str, Any]:
    checks = [{"name": check.name, "status": check.status, "detail": check.detail} for check in report.checks]
    return {
        "valid": report.exit_code == 0,
        "exit_code": report.exit_code,
        "job_id": report.receipt.get("job_id") if report.receipt else None,
        "checks": checks,
        "caveats": report.caveats,
        "receipt": report.receipt,
    }
