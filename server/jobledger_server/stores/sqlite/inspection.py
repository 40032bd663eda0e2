"""Looks at a database that may be damaged, and changes nothing in it."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

TERMINAL_FROM = 4


@dataclass(frozen=True, slots=True)
class Found:
    """What a database holds.

    Attributes:
        trouble: why it can't be used; empty where it can.
        receipts: how many.
        leaf: of the receipt that was asked for; None where there is none.
        unfinished: ids of the jobs that had not ended.
        job_ids: of all jobs and receipts.
    """

    trouble: str = ""
    receipts: int = 0
    leaf: bytes | None = None
    unfinished: Sequence[str] = ()
    job_ids: frozenset[str] = frozenset()


def inspect(path: Path, *, leaf_index: int) -> Found:
    """Reads the whole file.

    Args:
        leaf_index: of the receipt whose leaf is wanted.
    """
    if not path.exists():
        return Found(trouble="there is none")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            return Found(trouble=f"it is damaged: {verdict}") if verdict != "ok" else _found(connection, leaf_index)
    except sqlite3.Error as error:
        return Found(trouble=f"it can't be read: {error}")


def _found(connection: sqlite3.Connection, leaf_index: int) -> Found:
    (receipts,) = connection.execute("SELECT count(*) FROM receipts").fetchone()
    leaf = connection.execute("SELECT leaf FROM receipts WHERE leaf_index = ?", (leaf_index,)).fetchone()
    unfinished = connection.execute("SELECT job_id FROM jobs WHERE state < ? ORDER BY number", (TERMINAL_FROM,))
    names = connection.execute("SELECT job_id FROM jobs UNION SELECT job_id FROM receipts")
    return Found(
        receipts=receipts,
        leaf=leaf[0] if leaf else None,
        unfinished=[job_id for (job_id,) in unfinished],
        job_ids=frozenset(job_id for (job_id,) in names),
    )
