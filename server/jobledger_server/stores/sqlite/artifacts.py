"""Artifacts of jobs; their bytes are elsewhere."""

import sqlite3
from collections.abc import Sequence

from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_pb2 import Artifact

from jobledger_server.stores.sqlite import counters, events
from jobledger_server.stores.sqlite.writer import Transaction


def reserve_ids(transaction: Transaction, count: int) -> int:
    return counters.take(transaction.connection, "artifact", count)


def add(connection: sqlite3.Connection, job_number: int, artifacts: Sequence[Artifact]) -> None:
    connection.executemany(
        "INSERT INTO artifacts (id, job_number, path, sha256, artifact) VALUES (?, ?, ?, ?, ?)",
        [
            (
                artifact.id,
                job_number,
                artifact.path,
                sha256_of(artifact),
                stored(artifact),
            )
            for artifact in artifacts
        ],
    )


def drop(connection: sqlite3.Connection, job_number: int) -> None:
    connection.execute("DELETE FROM artifacts WHERE job_number = ?", (job_number,))


def of_job(connection: sqlite3.Connection, job_id: str) -> Sequence[Artifact]:
    rows = connection.execute(
        "SELECT artifact FROM artifacts WHERE job_number = (SELECT number FROM jobs WHERE job_id = ?) ORDER BY path",
        (job_id,),
    )
    return [Artifact.FromString(data) for (data,) in rows]


def replace(transaction: Transaction, artifact: Artifact, artifact_events: Sequence[Event] = ()) -> bool:
    """Stores the artifact anew. Nothing happens where it was deleted with its job, or is so already."""
    found = transaction.connection.execute(
        "SELECT job_id, artifact FROM artifacts JOIN jobs ON number = job_number WHERE id = ?", (artifact.id,)
    ).fetchone()
    if found is None or found[1] == stored(artifact):
        return False
    transaction.take(found[0])
    transaction.connection.execute(
        "UPDATE artifacts SET path = ?, sha256 = ?, artifact = ? WHERE id = ?",
        (artifact.path, sha256_of(artifact), stored(artifact), artifact.id),
    )
    events.append(transaction, artifact_events)
    return True


def stored(artifact: Artifact) -> bytes:
    """The artifact as its column has it."""
    return artifact.SerializeToString(deterministic=True)


def sha256_of(artifact: Artifact) -> str | None:
    """The hash of its bytes, or None where there are none."""
    return artifact.sha256 or None
