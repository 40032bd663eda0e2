"""How many jobs there are, by workspace, state and type: triggers keep it in the transaction of each change."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobledger.v1.job_pb2 import JobState

from jobledger_server.core.ports import JobFilter
from jobledger_server.stores.sqlite.conditions import Conditions


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many jobs of a workspace (None: of all) have a state and a type; at least one."""

    workspace_id: str | None
    state: JobState.ValueType
    job_type: str
    jobs: int


def tallies(connection: sqlite3.Connection, where: JobFilter) -> Sequence[Tally]:
    """The tallies that the filter admits by workspace, state and type, whatever else it asks."""
    if where.workspace_id is None and where.workspaces is None:
        source = "NULL, state, job_type, jobs FROM job_counts"
    else:
        source = "workspace_id, state, job_type, jobs FROM job_counts_of_workspace"
    conditions = Conditions.of_kind(where).also("jobs > 0")
    rows = connection.execute(f"SELECT {source} {conditions.sql}", conditions.values)
    return [
        Tally(workspace_id=workspace_id, state=state, job_type=job_type, jobs=jobs)
        for workspace_id, state, job_type, jobs in rows
    ]


def count(counted: Sequence[Tally]) -> int:
    """How many jobs these tallies are of."""
    return sum(tally.jobs for tally in counted)


def count_by_state(
    connection: sqlite3.Connection, workspaces: Sequence[str] | None
) -> Mapping[JobState.ValueType, int]:
    """How many jobs of these workspaces (None: of all) are in each state; states without jobs are absent."""
    counts: dict[JobState.ValueType, int] = {}
    if workspaces != ():
        for tally in tallies(connection, JobFilter(workspaces=None if workspaces is None else tuple(workspaces))):
            counts[tally.state] = counts.get(tally.state, 0) + tally.jobs
    return counts
