"""`jobledger recover` and `jobledger backup`: arguments in, exit code out."""

import json
import os
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from jobledger_server.access.private_files import PrivateFileError
from jobledger_server.config import default_data_dir
from jobledger_server.core.ports.archive import ArchiveError
from jobledger_server.lifecycle import StartError, locked
from jobledger_server.offline.backup import BackedUp, BackupError, back_up
from jobledger_server.offline.recover import Recovered, RecoveryError, go_on
from jobledger_server.offline.recover import recover as make_anew

NOT_WHOLE = 1
ERRORS = (ArchiveError, RecoveryError, BackupError, StartError, PrivateFileError, OSError, sqlite3.Error)

data_dir_option = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Of the installation. Default: this machine's."
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


@click.command()
@data_dir_option
@click.option("--dry-run", is_flag=True, help="Say what would come back, and change nothing.")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A checkpoint of the log that was kept elsewhere: no less may come back.",
)
@click.option(
    "--new-log",
    is_flag=True,
    help="Go on with the database as it is, older than the archive perhaps; the log begins anew, with a new key.",
)
@json_option
def recover(data_dir: Path | None, checkpoint: Path | None, *, dry_run: bool, new_log: bool, as_json: bool) -> None:
    """Make a lost, damaged or old database anew out of the archive of signed receipts.

    The server must be stopped. What is replaced is moved aside, never deleted.
    """
    directory = _directory(data_dir)
    try:
        with locked(directory):
            if new_log:
                done = go_on(directory, dry_run=dry_run)
            else:
                done = make_anew(directory, checkpoint=checkpoint, dry_run=dry_run)
    except ERRORS as error:
        raise click.ClickException(str(error)) from None
    click.echo(json.dumps({**done.document(), "dry_run": dry_run}) if as_json else _told(done, dry_run=dry_run))


@click.command()
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path))
@data_dir_option
@click.option("--keys", type=click.Path(path_type=Path), help="Copy the private keys to this directory, apart.")
@json_option
def backup(target: Path, data_dir: Path | None, keys: Path | None, *, as_json: bool) -> None:
    """Copy an installation, which may be running, to a new directory DIR from which a server can be started.

    Exit code 1: something is missing in it or damaged, and is named; 2: there is no copy.
    """
    directory = _directory(data_dir)
    try:
        done = back_up(directory, target, keys=keys)
    except ERRORS as error:
        raise click.ClickException(str(error)) from None
    click.echo(json.dumps(asdict(done)) if as_json else _copied(done))
    if not done.is_whole:
        # The copy is there, and all that could be had is in it.
        raise click.exceptions.Exit(NOT_WHOLE)


def _directory(given: Path | None) -> Path:
    directory = given or Path(os.environ.get("JOBLEDGER_DATA_DIR") or default_data_dir())
    directory = directory.expanduser().absolute()
    if not directory.is_dir():
        raise click.ClickException(f"There is no installation in {directory}: name its directory with --data-dir")
    return directory


def _told(done: Recovered, *, dry_run: bool) -> str:
    if not done.database:
        return f"Nothing to recover: the database has all {done.receipts} receipts of the archive."
    would = "would be " if dry_run else ""
    lines = [f"The database: {done.database}."]
    if done.new_log:
        lines.append(f"Its {done.receipts} receipts {would}gone on with, in a new log; jobs that wait are lost then.")
    else:
        lines.append(f"{done.receipts} receipts {would}brought back, {done.jobs} of them with their jobs.")
    lines += [f"damaged     {job_id}: the bytes of {path} are gone or others" for job_id, path in done.damaged]
    lines += [f"forgotten   {job_id}: it had not ended in the database that was there" for job_id in done.forgotten]
    lines += [f"given up    {job_id}: its receipt is in the old archive alone" for job_id in done.given_up]
    if done.unread:
        lines.append(f"given up    what the old archive holds besides, which can't be told: {done.unread}")
    lines += [f"undeleted   {job_id}: it was deleted, and is there again: delete it" for job_id in done.undeleted]
    for job in done.unfinished:
        state = "it ran, and was ended" if job.running else "nothing of it runs"
        state = "it runs, and would be ended" if job.running and dry_run else state
        state = "it still runs though it was killed" if job.survived else state
        lines.append(f"unfinished  {job.job_id}: there is no receipt of it; {state}")
    lines += [f"kept aside  {name}: {place}" for name, place in done.aside.items()]
    if not dry_run:
        lines.append("Start the server: `jobledger up`. It makes a new token where there is none.")
    return "\n".join(lines)


def _copied(done: BackedUp) -> str:
    facts: dict[str, Any] = asdict(done)
    lines = [
        "{receipts} receipts, {unfinished} jobs that had not ended, {blobs} blobs, {bytes} bytes in {target}".format(
            **facts
        )
    ]
    lines += [f"damaged     blob {sha256}: its bytes are others, it was not copied" for sha256 in done.damaged]
    lines += [f"missing     blob {sha256}: it is not there" for sha256 in done.missing]
    lines += [f"missing     log of {job_id}: it was gone before it could be copied" for job_id in done.missing_logs]
    if done.archive:
        lines.append(
            f"damaged     archive of receipts: {done.archive}. The database has all of it: to make it anew, stop"
        )
        lines.append("            the server, move receipts/ aside, start it, and take another backup")
    lines.append(f"private keys in {done.keys}: keep them apart" if done.keys else "no private keys: see --keys")
    lines.append(f"To restore it, copy it to where it is to be, and: jobledger up --data-dir {done.target}")
    return "\n".join(lines)
