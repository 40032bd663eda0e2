"""Jobs of all kinds, filters over them, and what these admit in plain Python."""

from collections.abc import Sequence

from hypothesis import strategies as st
from jobledger_server.core.ports import JobFilter, JobRecord
from jobledger_server.core.times import micros
from support.records import NOW, QUEUED, STATES, a_record


def a_population() -> list[JobRecord]:
    """Jobs of every state, several at an instant, with labels, workspaces and types that overlap."""
    return [
        a_record(
            STATES[place % 6],
            created_at=NOW + place // 7,
            workspace_id=("default", "blue", "Default")[place % 3],
            job_type=("command", "agent")[place % 2],
            labels={"team": ("ops", "dev")[place // 2 % 2], "size%": "1_0"} if place % 5 else None,
        )
        for place in range(90)
    ]


POPULATION = a_population()
LABELS = (("team", "ops"), ("team", "dev"), ("size%", "1_0"), ("size%", "1x0"), ("Team", "ops"))
PREFIXES = ("", "job_", "job_%", "job", "JOB_", "x", POPULATION[7].job.job_id, POPULATION[7].job.job_id[:-1], "job_\0")
INSTANTS = st.none() | st.integers(NOW - 1, NOW + 14)

filters = st.builds(
    JobFilter,
    states=st.lists(st.sampled_from(STATES), max_size=4).map(tuple),
    created_after=INSTANTS,
    created_before=INSTANTS,
    id_prefix=st.sampled_from(PREFIXES),
    job_ids=st.lists(st.sampled_from([record.job.job_id for record in POPULATION] + ["job_x"]), max_size=5).map(tuple),
    labels=st.lists(st.sampled_from(LABELS), max_size=2).map(tuple),
    workspace_id=st.none() | st.sampled_from(["default", "blue", "none"]),
    job_type=st.none() | st.sampled_from(["command", "agent", "none"]),
    workspaces=st.none() | st.lists(st.sampled_from(["default", "blue", "none"]), max_size=2).map(tuple),
)


def admits(where: JobFilter, record: JobRecord) -> bool:
    """The promises of JobFilter, word for word."""
    job = record.job
    created_at = micros(job.created_at)
    return all(
        (
            not where.states or job.state in where.states,
            where.created_after is None or created_at >= where.created_after,
            where.created_before is None or created_at < where.created_before,
            job.job_id.startswith(where.id_prefix),
            not where.job_ids or job.job_id in where.job_ids,
            all(job.labels.get(key) == value for key, value in where.labels),
            where.workspace_id in (None, job.workspace_id),
            where.job_type in (None, job.job_type),
            where.workspaces is None or job.workspace_id in where.workspaces,
        )
    )


def place_of(record: JobRecord) -> tuple[int, str]:
    return micros(record.job.created_at), record.job.job_id


def newest_first(records: Sequence[JobRecord]) -> list[JobRecord]:
    return sorted(records, key=place_of, reverse=True)


def live_place(record: JobRecord) -> tuple[bool, int, str]:
    queued = record.job.state == QUEUED
    return queued, micros(record.job.queued_at if queued else record.job.started_at), record.job.job_id


def ids(records: Sequence[JobRecord]) -> list[str]:
    return [record.job.job_id for record in records]
