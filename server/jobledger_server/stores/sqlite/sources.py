"""Through which indexes the jobs that a filter admits are found: the ones that leave the fewest to look at."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from jobledger_server.core.ports import JobFilter
from jobledger_server.stores.sqlite.conditions import Conditions
from jobledger_server.stores.sqlite.counts import Tally, count, tallies

# What SQLite calls the index of the column `job_id TEXT UNIQUE`.
BY_ID = "sqlite_autoindex_jobs_1"
# Jobs found by their id are fetched one by one and sorted; in the other indexes they stand in order.
COST_OF_SORTING = 20
# One job in so many must be admitted, or all jobs are not read in order, passing over the others.
SPARSE = 50
# SQLite merges up to 500.
MOST_MERGED = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Rows of `jobs` or `job_labels`, a row a job, found through one index: newest first but for BY_ID."""

    table: str
    conditions: Conditions
    number: str = "number"

    @property
    def places(self) -> str:
        """SQL: number, created_at and job_id of its jobs."""
        return f"SELECT {self.number} AS number, created_at, job_id FROM {self.table} {self.conditions.sql}"  # noqa: S608

    def count(self, connection: sqlite3.Connection) -> int:
        """How many jobs."""
        sql = f"SELECT count(*) FROM {self.table} {self.conditions.sql}"  # noqa: S608
        return int(connection.execute(sql, self.conditions.values).fetchone()[0])


# The sources of the jobs behind a place, or of all.
Sources = Callable[[tuple[int, str] | None], Sequence[Source]]


def choose(connection: sqlite3.Connection, where: JobFilter, admitted: Sequence[Tally]) -> Sources:
    """The sources that together hold each job of the filter once. `admitted` are its tallies."""
    if where.job_ids:
        return partial(_by_id, where)
    best, fewest = _by_kind(connection, where, admitted), count(admitted)
    for label in where.labels:
        if (jobs := _count(connection, "job_labels", _of_label(where, label), most=fewest + 1)) <= fewest:
            best, fewest = partial(_by_label, where, label), jobs
    if where.id_prefix:
        most = fewest // COST_OF_SORTING
        prefix = Conditions.of_place(JobFilter(id_prefix=where.id_prefix))
        if _count(connection, f"jobs INDEXED BY {BY_ID}", prefix, most=most + 1) <= most:
            best = partial(_by_id, where)
    return best


def _count(connection: sqlite3.Connection, table: str, conditions: Conditions, *, most: int) -> int:
    """How many rows, but no more than `most`."""
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {table} {conditions.sql} LIMIT ?)"  # noqa: S608
    return int(connection.execute(sql, [*conditions.values, most]).fetchone()[0])


def is_sparse(connection: sqlite3.Connection, admitted: Sequence[Tally], among: JobFilter) -> bool:
    """Whether so few of the jobs of `among` are admitted that finding and sorting these beats passing over the rest."""
    return count(admitted) * SPARSE < count(tallies(connection, among))


def _by_kind(connection: sqlite3.Connection, where: JobFilter, admitted: Sequence[Tally]) -> Sources:
    kinds = Conditions.of_kind(where)
    index = "jobs_newest_of_state" if admitted[0].workspace_id is None else "jobs_newest_of_workspace"
    if kinds.clauses and len(admitted) <= MOST_MERGED:
        return partial(_of_kinds, where, index, [_of_tally(tally) for tally in admitted])
    if not kinds.clauses or not is_sparse(connection, admitted, JobFilter()):
        index = "jobs_newest"
    return partial(_of_kinds, where, index, [kinds])


def _of_kinds(
    where: JobFilter, index: str, kinds: Sequence[Conditions], after: tuple[int, str] | None
) -> Sequence[Source]:
    rest = Conditions.of_place(where, after).labelled(where.labels, number="jobs.number")
    return [Source(table=f"jobs INDEXED BY {index}", conditions=kind + rest) for kind in kinds]


def _of_tally(tally: Tally) -> Conditions:
    conditions = Conditions().also("state = ? AND job_type = ?", tally.state, tally.job_type)
    return conditions if tally.workspace_id is None else conditions.also("workspace_id = ?", tally.workspace_id)


def _by_label(where: JobFilter, label: tuple[str, str], after: tuple[int, str] | None) -> Sequence[Source]:
    conditions = _of_label(where, label, after)
    kinds = Conditions.of_kind(where)
    if kinds.clauses:
        kinds = Conditions().also("number = job_number") + kinds
        conditions = conditions.also(f"EXISTS (SELECT 1 FROM jobs {kinds.sql})", *kinds.values)  # noqa: S608
    others = [other for other in where.labels if other != label]
    conditions = conditions.labelled(others, number="job_labels.job_number")
    return [Source(table="job_labels INDEXED BY job_labels_newest", conditions=conditions, number="job_number")]


def _of_label(where: JobFilter, label: tuple[str, str], after: tuple[int, str] | None = None) -> Conditions:
    return Conditions().also("key = ? AND value = ?", *label) + Conditions.of_place(where, after)


def _by_id(where: JobFilter, after: tuple[int, str] | None) -> Sequence[Source]:
    conditions = Conditions.of_place(where, after) + Conditions.of_kind(where)
    conditions = conditions.labelled(where.labels, number="jobs.number")
    return [Source(table=f"jobs INDEXED BY {BY_ID}", conditions=conditions)]
