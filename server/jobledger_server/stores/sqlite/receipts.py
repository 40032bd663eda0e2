"""Receipts: written once, kept after their jobs, numbered as leaves of the Merkle log."""

import sqlite3
from collections.abc import Sequence

from jobledger.v1.job_pb2 import Job

from jobledger_server.core.ports import StoredReceipt


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
