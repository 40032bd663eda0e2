"""Receipts: written once, kept after their jobs, numbered as leaves of the Merkle log."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from jobledger.v1.job_pb2 import Artifact, Job

from jobledger_server.core.ports import StoredReceipt
from jobledger_server.core.ports.archive import SealedJob

SEALED = """
SELECT leaf_index, envelope, leaf, receipts.workspace_id, job, coalesce(number, 0)
FROM receipts LEFT JOIN jobs USING (job_id) WHERE leaf_index >= ? ORDER BY leaf_index LIMIT ?
"""
ARTIFACTS = "SELECT artifact FROM artifacts WHERE job_number = ? ORDER BY path"


def add(connection: sqlite3.Connection, job: Job, receipt: StoredReceipt) -> None:
    """Stores the receipt as the next leaf. Receipts are never deleted, so the indexes stay dense."""
    connection.execute(
        "INSERT INTO receipts (leaf_index, job_id, workspace_id, receipt, envelope, leaf)"
        " SELECT coalesce(max(leaf_index) + 1, 0), ?, ?, ?, ?, ? FROM receipts",
        (job.job_id, job.workspace_id, receipt.receipt, receipt.envelope, receipt.leaf),
    )


def get(connection: sqlite3.Connection, job_id: str) -> StoredReceipt | None:
    row = connection.execute(
        "SELECT receipt, envelope, leaf, leaf_index, workspace_id FROM receipts WHERE job_id = ?", (job_id,)
    ).fetchone()
    if row is None:
        return None
    receipt, envelope, leaf, leaf_index, workspace_id = row
    return StoredReceipt(
        receipt=receipt, envelope=envelope, leaf=leaf, leaf_index=leaf_index, workspace_id=workspace_id
    )


def leaves(connection: sqlite3.Connection, start: int) -> Sequence[bytes]:
    rows = connection.execute("SELECT leaf FROM receipts WHERE leaf_index >= ? ORDER BY leaf_index", (start,))
    return [leaf for (leaf,) in rows]


def sealed_jobs(connection: sqlite3.Connection, start: int, *, limit: int) -> Sequence[SealedJob]:
    return [_sealed(connection, row) for row in connection.execute(SEALED, (start, limit)).fetchall()]


def _sealed(connection: sqlite3.Connection, row: Sequence[Any]) -> SealedJob:
    leaf_index, envelope, leaf, workspace_id, job, number = row
    return SealedJob(
        leaf_index=leaf_index,
        envelope=envelope,
        leaf=leaf,
        workspace_id=workspace_id,
        job=None if job is None else Job.FromString(job),
        number=number,
        artifacts=[Artifact.FromString(data) for (data,) in connection.execute(ARTIFACTS, (number,))],
    )
