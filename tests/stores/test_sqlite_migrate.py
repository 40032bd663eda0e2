"""Migrations: numbered, whole or not at all, and never backwards."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from jobledger_server.core.ports import JOB_DIRS, LOGS, JobFilter, JobRecord, StoreUnavailableError
from jobledger_server.stores.errors import SchemaError
from jobledger_server.stores.sqlite import SqliteStore
from jobledger_server.stores.sqlite.connection import connect, require_sqlite
from jobledger_server.stores.sqlite.migrate import Migration, migrate, shipped_migrations
from jobledger_server.stores.sqlite.rows import columns_of
from support.lists import LABELS, POPULATION, admits, ids, newest_first
from support.records import CANCELLED, COMPLETED, FAILED, STATES, a_record, an_artifact

FIRST = Migration(version=1, name="0001_first.sql", script="CREATE TABLE a (x TEXT) STRICT;\n-- the end\n")
SECOND = Migration(
    version=2,
    name="0002_second.sql",
    script="""
    ALTER TABLE a ADD COLUMN y TEXT NOT NULL DEFAULT 'old';
    CREATE TRIGGER a_never_shrinks BEFORE DELETE ON a
    BEGIN
      SELECT RAISE(ABORT, 'no; never');
    END;
    CREATE INDEX a_by_y ON a (y)
    """,
)
BROKEN = Migration(
    version=2, name="0002_broken.sql", script="CREATE TABLE b (x TEXT);\nINSERT INTO a (x) VALUES ('half');\nNONSENSE;"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobledger.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(path, busy_timeout=0)) as connection:
        yield connection


def schema(connection: sqlite3.Connection) -> Sequence[tuple[str, ...]]:
    return connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").fetchall()


def versions(connection: sqlite3.Connection) -> Sequence[int]:
    return [version for (version,) in connection.execute("SELECT version FROM schema_migrations ORDER BY version")]


def test_a_database_migrated_step_by_step_is_like_a_fresh_one(connection: sqlite3.Connection, tmp_path: Path) -> None:
    migrate(connection, [FIRST])
    connection.execute("INSERT INTO a (x) VALUES ('kept')")
    migrate(connection, [FIRST, SECOND])
    with closing(connect(tmp_path / "fresh.db", busy_timeout=0)) as fresh:
        migrate(fresh, [FIRST, SECOND])
        assert schema(connection) == schema(fresh)
    assert connection.execute("SELECT x, y FROM a").fetchall() == [("kept", "old")]


def test_migrating_again_changes_nothing(connection: sqlite3.Connection) -> None:
    migrate(connection, [FIRST, SECOND])
    before = schema(connection)
    migrate(connection, [FIRST, SECOND])
    assert (schema(connection), versions(connection)) == (before, [1, 2])


def test_a_broken_migration_leaves_nothing_and_the_next_try_goes_on(connection: sqlite3.Connection) -> None:
    migrate(connection, [FIRST])
    before = schema(connection)
    with pytest.raises(sqlite3.OperationalError, match="NONSENSE"):
        migrate(connection, [FIRST, BROKEN])
    assert (schema(connection), versions(connection)) == (before, [1])
    assert connection.execute("SELECT count(*) FROM a").fetchone() == (0,)
    migrate(connection, [FIRST, SECOND])
    assert versions(connection) == [1, 2]


def test_a_newer_database_is_refused_with_what_to_do_and_left_alone(connection: sqlite3.Connection) -> None:
    migrate(connection, [FIRST, SECOND])
    before = schema(connection)
    with pytest.raises(SchemaError, match=r"schema 2.*up to 1: run the newer version"):
        migrate(connection, [FIRST])
    assert schema(connection) == before


def test_a_migration_whose_text_has_changed_is_refused(connection: sqlite3.Connection) -> None:
    migrate(connection, [FIRST])
    with pytest.raises(SchemaError, match=r"another 0001_first\.sql"):
        migrate(connection, [replace(FIRST, script=FIRST.script + "CREATE TABLE c (x TEXT);")])


def test_the_shipped_migrations_are_numbered_from_one_without_a_gap() -> None:
    migrations = shipped_migrations()
    assert [migration.version for migration in migrations] == list(range(1, len(migrations) + 1))
    assert migrations[0].name == "0001_initial.sql"


def keep_job(connection: sqlite3.Connection, number: int, record: JobRecord) -> None:
    """Stores a job as it was stored when nothing was noted of where it comes from yet."""
    columns = {"number": number, **columns_of(record)}
    del columns["origin"]
    names, places = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    connection.execute(f"INSERT INTO jobs ({names}) VALUES ({places})", columns)


def keep(connection: sqlite3.Connection, number: int, record: JobRecord) -> None:
    """Stores a job as it was stored when labels did not have its place yet."""
    keep_job(connection, number, record)
    for label in record.job.labels.items():
        connection.execute("INSERT INTO job_labels (job_number, key, value) VALUES (?, ?, ?)", (number, *label))


async def test_jobs_from_before_the_counters_are_counted_and_found_by_their_labels(path: Path) -> None:
    with closing(connect(path, busy_timeout=0)) as connection:
        migrate(connection, shipped_migrations()[:2])
        for number, record in enumerate(POPULATION, start=1):
            keep(connection, number, record)
    async with SqliteStore(path) as store:
        for where in (
            *(JobFilter(states=(state,), job_type="agent") for state in STATES),
            *(JobFilter(workspace_id=workspace_id) for workspace_id in ("default", "blue", "none")),
            *(JobFilter(labels=(label,), workspaces=("blue", "default")) for label in LABELS),
        ):
            page = await store.list_jobs(where, limit=100)
            expected = newest_first([record for record in POPULATION if admits(where, record)])
            assert (ids(page.records), page.total) == (ids(expected), len(expected))
        await store.delete_job(POPULATION[0].job.job_id)
        assert (await store.list_jobs(JobFilter(), limit=1)).total == len(POPULATION) - 1


OLD_RECEIPTS = ((COMPLETED, 0, 0), (FAILED, 2, 0), (CANCELLED, 2, 1), (COMPLETED, None, None))


async def test_jobs_from_before_retention_are_kept_by_what_their_receipts_tell(path: Path) -> None:
    """A log of which nothing is known is kept as the worst."""
    records = [a_record(state) for state, _, _ in OLD_RECEIPTS]
    with closing(connect(path, busy_timeout=0)) as connection:
        migrate(connection, shipped_migrations()[:3])
        for number, (record, (_, warnings, errors)) in enumerate(zip(records, OLD_RECEIPTS, strict=True), start=1):
            keep_job(connection, number, record)
            receipt = json.dumps({"summary": {"warnings_count": warnings, "errors_count": errors}}).encode()
            connection.execute(
                "INSERT INTO receipts VALUES (?, ?, 'default', ?, x'', zeroblob(32))",
                (number, record.job.job_id, receipt),
            )
        connection.execute("INSERT INTO artifacts VALUES (1, 1, 'a', ?)", (an_artifact(1).SerializeToString(),))
    async with SqliteStore(path) as store:
        found = {
            kept: [job.job_id for job in await store.ended_jobs(kept, before=2**62, limit=9)]
            for kept in (*LOGS, *JOB_DIRS)
        }
        first, second, third, fourth = (record.job.job_id for record in records)
        assert [found[kept] for kept in LOGS] == [[first], [second], [third, fourth]]
        assert [found[kept] for kept in JOB_DIRS] == [[first, fourth], [second], [third]]
        assert await store.unneeded_blobs([an_artifact(1).sha256]) == set()


def test_a_library_that_is_too_old_is_refused_with_what_to_do() -> None:
    with pytest.raises(SchemaError, match=r"3\.34\.1; use one with SQLite 3\.37\.0 or later"):
        require_sqlite((3, 34, 1))


async def test_a_store_of_a_newer_version_does_not_open(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.create_job(a_record(), [])
    with closing(connect(path, busy_timeout=0)) as connection:
        connection.execute("INSERT INTO schema_migrations VALUES (999, '0999_later.sql', '')")
    with pytest.raises(SchemaError, match="999"):
        async with SqliteStore(path):
            pass


@pytest.fixture
def no_database(path: Path) -> Path:
    path.write_bytes(b"not a database " * 100)
    return path


async def test_a_file_that_is_no_database_does_not_open(no_database: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="not a Jobledger database"):
        async with SqliteStore(no_database):
            pass


async def test_a_directory_that_is_not_there_is_told_plainly(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="can't be opened"):
        async with SqliteStore(tmp_path / "nowhere" / "jobledger.db"):
            pass


async def test_only_the_owner_can_read_the_files(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.create_job(a_record(), [])
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == {"jobledger.db": 0o600, "jobledger.db-wal": 0o600, "jobledger.db-shm": 0o600}
