"""`jobledger keys`: the keys with which an installation signs, on its own machine.

What changes them needs the server to be stopped. A server has its keys in memory: if it could go on with an old one,
`keys.json` would tell a moment from which that signs no more, and it would sign on. Jobs go on while it is stopped.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from google.protobuf import json_format
from jobledger.v1.receipt_service_pb2 import ListSigningKeysResponse, SigningKey

from jobledger_server.access.private_files import PrivateFileError
from jobledger_server.config import default_data_dir
from jobledger_server.core.clock import SystemClock
from jobledger_server.core.times import micros, rfc3339
from jobledger_server.lifecycle import StartError, locked
from jobledger_server.service import key_files
from jobledger_server.service.key_files import KeyRingError

HAND_ON = "Give {path} to those who verify receipts, by another way than the receipts."

data_dir_option = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Data directory of the server. Default: this machine's."
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


@click.group()
def keys() -> None:
    """Shows, rotates and revokes the keys that sign receipts."""


@keys.command(name="list")
@data_dir_option
@json_option
def show(data_dir: Path | None, *, as_json: bool) -> None:
    """Lists the public keys, newest first, and the log's."""
    directory = _directory(data_dir)
    with _plain_errors():
        known = key_files.public_keys(directory, key_files.read_keys(directory / key_files.KEYS))
    if as_json:
        click.echo(json.dumps(_document(known)))
        return
    _print(known.keys)
    click.echo(f"log {known.log_key or 'has no key yet'}")


@keys.command()
@data_dir_option
@json_option
def rotate(data_dir: Path | None, *, as_json: bool) -> None:
    """Replaces the key that signs receipts. Those that the old one has signed stay valid.

    The server must be stopped; jobs go on meanwhile. The old private key is gone afterwards.
    """
    directory = _directory(data_dir)
    with _changing(directory):
        _told(directory, key_files.rotate(directory, SystemClock()), as_json=as_json)


@keys.command()
@click.argument("key_id")
@data_dir_option
@json_option
def revoke(key_id: str, data_dir: Path | None, *, as_json: bool) -> None:
    """Makes all receipts that a key has signed invalid, for who has the new keys.json: the key was stolen.

    KEY_ID may be the beginning of it. The server must be stopped; jobs go on meanwhile. A new key takes the place of
    the one that signs now.
    """
    directory = _directory(data_dir)
    with _changing(directory):
        _told(directory, key_files.revoke(directory, key_id, SystemClock()), as_json=as_json)


@keys.command(name="new-log")
@data_dir_option
@json_option
def new_log(data_dir: Path | None, *, as_json: bool) -> None:
    """Begins a new log of receipts, where the key of the old one (log.key) is lost for good.

    Checkpoints of the old log that others have kept say nothing about receipts from then on.
    """
    directory = _directory(data_dir)
    with _changing(directory):
        key = key_files.new_log(directory)
        known = key_files.public_keys(directory, key_files.read_keys(directory / key_files.KEYS))
    click.echo(json.dumps(_document(known)) if as_json else f"log {key}")
    click.echo(HAND_ON.format(path=directory / key_files.LOG_VKEY), err=True)


def _directory(data_dir: Path | None) -> Path:
    """Where the keys of the installation are."""
    root = data_dir or Path(os.environ.get("JOBLEDGER_DATA_DIR") or default_data_dir())
    # A backup is restored without its keys: then there is a database, and no directory of keys.
    if not (root / "keys").is_dir() and not (root / "jobledger.db").exists():
        raise click.ClickException(f"{root} is no data directory of a server: see --data-dir")
    return root / "keys"


@contextmanager
def _changing(directory: Path) -> Iterator[None]:
    with _plain_errors(), locked(directory.parent):
        yield


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except (StartError, KeyRingError, PrivateFileError) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename} can't be used: {error.strerror}") from None


def _told(directory: Path, known: Sequence[SigningKey], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_document(key_files.public_keys(directory, known))))
    else:
        _print(known)
    click.echo(HAND_ON.format(path=directory / key_files.KEYS), err=True)


def _document(known: ListSigningKeysResponse) -> dict[str, Any]:
    document = json_format.MessageToDict(
        known, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return dict(document)


def _print(known: Sequence[SigningKey]) -> None:
    for key in known:
        click.echo(f"{key.key_id} {_state(key)}")


def _state(key: SigningKey) -> str:
    if key.HasField("revoked_at"):
        return f"revoked {rfc3339(micros(key.revoked_at))}"
    if key.HasField("valid_until"):
        return f"signed until {rfc3339(micros(key.valid_until))}"
    return f"signs since {rfc3339(micros(key.valid_from))}"
