"""Bringing a database to the schema of this version, one numbered step after the other."""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from jobledger.v1.job_pb2 import Artifact

from jobledger_server.stores.errors import SchemaError

LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
  version INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A step: its number from 1 on, its name, and its SQL."""

    version: int
    name: str
    script: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.script.encode()).hexdigest()


def shipped_migrations() -> Sequence[Migration]:
    """The steps that this version knows, in order."""
    folder = resources.files(__package__) / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [
        Migration(version=int(file.name.partition("_")[0]), name=file.name, script=file.read_text(encoding="utf-8"))
        for file in files
    ]


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Runs the steps that the database lacks, each in a transaction with its record.

    Raises:
        SchemaError: the database is newer than `migrations`, or was made by other ones of the same numbers.
        sqlite3.Error: a step failed; the steps before it stay.
    """
    connection.execute(LEDGER)
    _refuse_newer(connection, migrations)
    # What a step needs of the messages that are stored.
    connection.create_function("artifact_sha256", 1, lambda data: Artifact.FromString(data).sha256 or None)
    for migration in migrations:
        connection.execute("BEGIN IMMEDIATE")
        try:
            _apply(connection, migration)
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    # Looked up inside the transaction: another process may be migrating the same file.
    done = connection.execute("SELECT sha256 FROM schema_migrations WHERE version = ?", (migration.version,)).fetchone()
    if done is None:
        for statement in _statements(migration.script):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO schema_migrations (version, name, sha256) VALUES (?, ?, ?)",
            (migration.version, migration.name, migration.sha256),
        )
    elif done[0] != migration.sha256:
        raise SchemaError(
            f"The database's schema was made by another {migration.name} than this version's: "
            "run the Jobledger that made it, or start with a new data directory"
        )


def _refuse_newer(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    known = migrations[-1].version
    (found,) = connection.execute("SELECT coalesce(max(version), 0) FROM schema_migrations").fetchone()
    if found > known:
        raise SchemaError(
            f"The database has schema {found}, and this version of Jobledger knows schemas up to {known}: "
            "run the newer version that wrote it, or restore a backup from before the upgrade"
        )


def _statements(script: str) -> Iterator[str]:
    """The statements one by one: `executescript` would commit the transaction that it finds."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending
