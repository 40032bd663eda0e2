"""The queue, and what may go, are read from indexes: nothing reads or sorts all that there is to find a few."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jobledger.v1.job_pb2 import JobPriority
from jobledger_server.core.ports import EndedJob, Kept
from jobledger_server.stores.sqlite import jobs, queries, retention
from jobledger_server.stores.sqlite.connection import connect
from jobledger_server.stores.sqlite.migrate import migrate, shipped_migrations
from jobledger_server.stores.sqlite.writer import Transaction
from support.records import NOW, a_record


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(tmp_path / "plans.db", busy_timeout=0)) as connection:
        migrate(connection, shipped_migrations())
        yield connection


def test_the_queue_and_places_in_it_are_read_from_its_index(connection: sqlite3.Connection) -> None:
    statements: list[str] = []
    jobs.create(Transaction(connection), a_record(job_id="job_x"), [], None)
    connection.set_trace_callback(statements.append)
    queries.queued(connection, now=NOW, limit=10)
    queries.queue_position(connection, "job_x")
    connection.set_trace_callback(None)
    queue, _, place = ([row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")] for sql in statements)
    assert queue == ["SCAN jobs USING INDEX jobs_queue"]
    assert "\n".join(place).count("USING COVERING INDEX jobs_queue (priority") == 2, place


def test_jobs_of_full_groups_are_skipped_without_being_read(connection: sqlite3.Connection) -> None:
    """However many they are: the work goes with the sets of groups that wait."""
    fill(connection, 600)
    steps = [0]

    def count() -> None:
        steps[0] += 1

    def work(**arguments: Any) -> int:
        steps[0] = 0
        assert len(queries.queued(connection, now=NOW, limit=4, **arguments)) == 4
        return steps[0]

    connection.set_progress_handler(count, 1)
    before = work(full=["queue gpu", "label tenant=1"])
    connection.set_progress_handler(None, 0)
    fill(connection, 1_800)
    connection.set_progress_handler(count, 1)
    assert work(full=["queue gpu", "label tenant=1"]) < before * 1.1


def fill(connection: sqlite3.Connection, count: int) -> None:
    """Jobs of high priority in full groups, and behind them one in twenty that may start."""
    transaction = Transaction(connection)
    connection.execute("BEGIN")
    for number in range(count):
        groups = (("queue gpu",), ("queue gpu", "label tenant=2"), ("label tenant=1",))[number % 3]
        jobs.create(transaction, a_record(concurrency_groups=groups, priority=JobPriority.JOB_PRIORITY_HIGH), [], None)
        if not number % 20:
            jobs.create(transaction, a_record(concurrency_groups=("label tenant=2",)[number % 2 :]), [], None)
    connection.execute("COMMIT")


def test_the_queue_but_for_full_groups_is_read_from_its_index(connection: sqlite3.Connection) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    queries.queued(connection, now=NOW, limit=4, full=["queue gpu"])
    connection.set_trace_callback(None)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statements[0]}")]
    of_jobs = [step for step in plan if re.search(r"\b(SEARCH|SCAN) jobs\b", step)]
    assert len(of_jobs) == 6, plan
    for step in of_jobs:
        assert re.match(r"SEARCH jobs USING (COVERING INDEX jobs_queue_of_groups|INTEGER PRIMARY KEY)", step), plan


def test_what_may_go_is_found_by_its_age_without_sorting(connection: sqlite3.Connection) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    last = EndedJob(job_id="job_x", number=1, ended_at=NOW)
    retention.ended(connection, Kept.LOGS_INFO, before=NOW, limit=9, after=last)
    retention.unneeded_blobs(connection, ["0"])
    retention.unneeded_blobs(connection, ["0"], {Kept.JOBS: NOW})
    retention.unknown_jobs(connection, ["job_x"])
    retention.forget(Transaction(connection), Kept.LOGS_INFO, ["job_x"], at=NOW)
    connection.set_trace_callback(None)
    plan = "\n".join(row[3] for sql in statements for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}"))
    assert not re.search(r"SCAN (kept_of_jobs|jobs|artifacts)|TEMP B-TREE FOR ORDER", plan), plan
    assert "SEARCH kept_of_jobs USING PRIMARY KEY (kept=? AND (ended_at,job_number)>(?,?) AND ended_at<?)" in plan
    assert "USING COVERING INDEX artifacts_by_sha256" in plan
