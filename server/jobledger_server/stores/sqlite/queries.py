"""Jobs that are not terminal: the queue, and all of them."""

import json
import sqlite3
from collections.abc import Collection, Sequence

from jobledger_server.core.ports import JobRecord
from jobledger_server.stores.sqlite.rows import SELECT_RECORDS, record_of

QUEUE = "priority DESC, queued_at, job_id"

QUEUED = f"{SELECT_RECORDS} INDEXED BY jobs_queue WHERE state = 1 AND eligible_at <= :now ORDER BY {QUEUE} LIMIT :limit"
# Jobs wait by the million, and few of their sets of groups differ. So: seek from set to set, leave out those with a
# full group, and read the first jobs of the sets whose very first are the first of all: no other set can hold any.
_QUEUE_OF_SET = "FROM jobs INDEXED BY jobs_queue_of_groups WHERE state = 1 AND concurrency_groups"
QUEUED_BUT_FOR_FULL = f"""
WITH RECURSIVE waiting (in_groups) AS (
  SELECT (SELECT concurrency_groups {_QUEUE_OF_SET} >= '' ORDER BY concurrency_groups LIMIT 1)
  UNION ALL
  SELECT (SELECT concurrency_groups {_QUEUE_OF_SET} > in_groups ORDER BY concurrency_groups LIMIT 1)
  FROM waiting WHERE in_groups IS NOT NULL
), heads (in_groups, head) AS MATERIALIZED (
  SELECT in_groups, (SELECT number {_QUEUE_OF_SET} = in_groups AND eligible_at <= :now ORDER BY {QUEUE} LIMIT 1)
  FROM waiting
  WHERE NOT EXISTS (SELECT 1 FROM json_each(in_groups) WHERE value IN (SELECT value FROM json_each(:full)))
), first (in_groups) AS MATERIALIZED (
  SELECT in_groups FROM heads JOIN jobs ON number = head ORDER BY {QUEUE} LIMIT :limit
)
{SELECT_RECORDS} JOIN first ON number IN (
  SELECT number {_QUEUE_OF_SET} = in_groups AND eligible_at <= :now ORDER BY {QUEUE} LIMIT :limit
) ORDER BY {QUEUE} LIMIT :limit
"""  # noqa: S608 - made of this package's own words alone


def queued(connection: sqlite3.Connection, *, now: int, limit: int, full: Collection[str] = ()) -> Sequence[JobRecord]:
    rows = connection.execute(
        QUEUED_BUT_FOR_FULL if full else QUEUED, {"now": now, "limit": limit, "full": json.dumps([*full])}
    )
    return [record_of(row) for row in rows]


def unfinished(connection: sqlite3.Connection) -> Sequence[JobRecord]:
    rows = connection.execute(f"{SELECT_RECORDS} WHERE state < 4 ORDER BY created_at, job_id")
    return [record_of(row) for row in rows]


def queue_position(connection: sqlite3.Connection, job_id: str) -> int | None:
    row = connection.execute(
        "SELECT priority, queued_at, job_id FROM jobs WHERE state = 1 AND job_id = ?", (job_id,)
    ).fetchone()
    if row is None:
        return None
    (position,) = connection.execute(
        "SELECT (SELECT count(*) FROM jobs INDEXED BY jobs_queue WHERE state = 1 AND priority > ?1)"
        " + (SELECT count(*) FROM jobs INDEXED BY jobs_queue"
        " WHERE state = 1 AND priority = ?1 AND (queued_at, job_id) <= (?2, ?3))",
        row,
    ).fetchone()
    return int(position)
