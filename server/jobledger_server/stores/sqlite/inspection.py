"""Looks at a database that may be damaged, and changes nothing in it."""

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

TERMINAL_FROM = 4
KEPT_LOGS = """
SELECT job_id, state >= :unfinished, state < :unfinished OR completed_at >= :since, coalesce(
  (SELECT json_extract(CAST(receipt AS TEXT), '$.log.entries') FROM receipts WHERE job_id = jobs.job_id), 0
) > 0
FROM jobs WHERE state < :unfinished OR EXISTS (
  SELECT 1 FROM kept_of_jobs WHERE job_number = number AND kept IN ('logs.info', 'logs.warn', 'logs.error')
) ORDER BY number
"""


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


@dataclass(frozen=True, slots=True)
class KeptLog:
    """A job whose log is kept, or that has not ended: whether it has, whether it has since, and said anything."""

    job_id: str
    has_ended: bool
    may_have_grown: bool
    has_entries: bool


def logs_of(path: Path, *, since: float) -> Sequence[KeptLog]:
    """The jobs that should have a log.

    Args:
        since: an instant, seconds since the epoch; what ended later may have grown until then.
    """
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(KEPT_LOGS, {"unfinished": TERMINAL_FROM, "since": int(since * 1_000_000)})
        return [KeptLog(job_id, bool(ended), bool(grown), bool(entries)) for job_id, ended, grown, entries in rows]


def leaves_and_jobs(path: Path) -> tuple[frozenset[bytes], frozenset[str]]:
    """The leaves of all receipts, and the ids of all jobs that are there."""
    with closing(sqlite3.connect(path)) as connection:
        leaves = frozenset(leaf for (leaf,) in connection.execute("SELECT leaf FROM receipts"))
        return leaves, frozenset(job_id for (job_id,) in connection.execute("SELECT job_id FROM jobs"))


def knows_token(path: Path, token: bytes) -> bool:
    """Whether it is one of the database's tokens."""
    with closing(sqlite3.connect(path)) as connection:
        digest = hashlib.sha256(token).digest()
        return connection.execute("SELECT 1 FROM tokens WHERE digest = ?", (digest,)).fetchone() is not None


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
