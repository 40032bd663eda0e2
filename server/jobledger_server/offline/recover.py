"""`jobledger recover`: a database out of the archive, or the decision to go on without it."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobledger_server.archive.believing import Trusted, believed, read_checkpoint
from jobledger_server.archive.files import ReceiptArchive
from jobledger_server.core.durable import sync_path
from jobledger_server.core.ports.archive import ArchiveError
from jobledger_server.offline.rebuilding import Rebuilding
from jobledger_server.offline.unfinished import Unfinished, described, end_all, move_aside, unfinished_jobs
from jobledger_server.service import restored
from jobledger_server.stores.sqlite.inspection import Found, inspect, knows_token, leaves_and_jobs
from jobledger_server.stores.sqlite.rebuild import part_ways, rebuild

PLAIN = ("database", "receipts", "jobs", "forgotten", "given_up", "unread", "undeleted", "new_log", "aside")
DATABASE, PARTIAL = "jobledger.db", "jobledger.db.recovering"


class RecoveryError(Exception):
    """It can't be done; the message says why, and what to do. Nothing was changed."""


@dataclass(kw_only=True)
class Recovered:
    """What was done, or would be.

    Attributes:
        database: what was wrong with the database; empty where nothing was, so that nothing was done.
        receipts, jobs: how many came back; a receipt whose job was deleted comes without it.
        damaged: job and path of each artifact whose bytes are gone or others.
        unfinished: jobs without a receipt of which there is something on the disk.
        forgotten: jobs that had not ended in the database that was replaced, where it could be read.
        given_up: jobs whose receipts are in the archive alone, which is not gone on with.
        unread: why not all of the archive could be read for that; empty where it could.
        undeleted: jobs that were deleted since the database was as it is, and are in it again.
        aside: what was moved where.
    """

    database: str = ""
    receipts: int = 0
    jobs: int = 0
    damaged: list[tuple[str, str]] = field(default_factory=list)
    unfinished: list[Unfinished] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    unread: str = ""
    undeleted: list[str] = field(default_factory=list)
    aside: dict[str, str] = field(default_factory=dict)
    new_log: bool = False

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **{name: getattr(self, name) for name in PLAIN},
            "damaged_artifacts": [{"job_id": job_id, "path": path} for job_id, path in self.damaged],
            "unfinished": described(self.unfinished),
        }


def recover(data_dir: Path, *, checkpoint: Path | None = None, dry_run: bool = False) -> Recovered:
    """Makes the database anew out of the archive, where it is lost, damaged, or older than the archive.

    The caller holds the lock of the data directory.

    Args:
        checkpoint: a file with a checkpoint that the log is known to have had.

    Raises:
        RecoveryError: there is no archive.
        ArchiveError: the archive is not to be believed.
        OSError, sqlite3.Error: the disk.
    """
    archive = ReceiptArchive(data_dir / "receipts")
    if not archive.segments():
        raise RecoveryError(f"There is no archive in {archive.directory}: restore a backup (`jobledger backup`)")
    trusted = Trusted.read(data_dir / "keys")
    known = None if checkpoint is None else read_checkpoint(checkpoint, trusted)
    rebuilding = Rebuilding(blobs=data_dir / "blobs", deleted=trusted.deleted(archive))
    partial = data_dir / PARTIAL
    kept = rebuilding.kept(believed(archive, trusted, checkpoint=known))
    _remove(partial)
    last = b""
    if dry_run:
        for job in kept:
            last = job.receipt.leaf
    else:
        try:
            last = rebuild(partial, kept, events=lambda: rebuilding.events)
        except BaseException:
            _remove(partial)
            raise
    done = _assess(inspect(data_dir / DATABASE, leaf_index=len(rebuilding.job_ids) - 1), rebuilding, last)
    if not done.database:
        _remove(partial)
        return done
    done.unfinished = list(unfinished_jobs(data_dir, rebuilding.job_ids))
    if not dry_run:
        _replace(data_dir, partial, done)
    return done


def go_on(data_dir: Path, *, dry_run: bool = False) -> Recovered:
    """Has the next server go on with the database as it is, under a log of its own.

    Raises:
        RecoveryError: the database can't be used.
        OSError: the disk.
    """
    archive, found = ReceiptArchive(data_dir / "receipts"), inspect(data_dir / DATABASE, leaf_index=0)
    if found.trouble:
        raise RecoveryError(f"The database can't be gone on with: {found.trouble}. `jobledger recover` makes it anew")
    done = Recovered(database="accepted as it is", receipts=found.receipts, jobs=len(found.job_ids), new_log=True)
    done.unfinished = list(unfinished_jobs(data_dir, found.job_ids))
    _give_up(done, archive, data_dir)
    if dry_run:
        return done
    stamp = _stamp()
    end_all(done.unfinished)
    _note(done, "unfinished", move_aside(done.unfinished, data_dir, stamp))
    # Before the archive goes: if this is cut short, the archive keeps the next server from starting with the old key.
    restored.mark(data_dir, {"accepted": stamp, "receipts": found.receipts})
    part_ways(data_dir / DATABASE)
    if not knows_token(data_dir / DATABASE, _token(data_dir)):
        # Of a newer database: the next start would not know what to do with it.
        _put_token_aside(data_dir, stamp, done)
    if archive.segments():
        done.aside["archive"] = archive.retire()
    return done


def _assess(found: Found, rebuilding: Rebuilding, last: bytes) -> Recovered:
    """What is wrong with the database beside the archive."""
    archived = len(rebuilding.job_ids)
    done = Recovered(receipts=archived, jobs=rebuilding.jobs, damaged=rebuilding.damaged)
    if found.trouble:
        done.database = found.trouble
    elif found.receipts < archived:
        done.database = f"it is older than the archive: it has {found.receipts} receipts of {archived}"
    elif found.leaf != last:
        done.database = f"its receipt {archived - 1} is another one than that of the archive"
    done.forgotten = [job_id for job_id in found.unfinished if job_id not in rebuilding.job_ids]
    return done


def _replace(data_dir: Path, partial: Path, done: Recovered) -> None:
    """Puts the new database in place. Cut short anywhere, it is begun again by the next `recover`."""
    stamp = _stamp()
    end_all(done.unfinished)
    _note(done, "unfinished", move_aside(done.unfinished, data_dir, stamp))
    for suffix in ("", "-wal", "-shm"):
        old = data_dir / f"{DATABASE}{suffix}"
        if old.exists():
            # SQLite finds what belongs to the file by its name.
            aside = data_dir / f"{DATABASE}.before-{stamp}{suffix}"
            old.rename(aside)
            done.aside.setdefault("database", str(aside))
    _put_token_aside(data_dir, stamp, done)
    partial.rename(data_dir / DATABASE)
    sync_path(data_dir)


def _give_up(done: Recovered, archive: ReceiptArchive, data_dir: Path) -> None:
    """Names what of the archive is not gone on with, as far as the archive can be believed."""
    known, jobs = leaves_and_jobs(data_dir / DATABASE)
    try:
        trusted = Trusted.read(data_dir / "keys")
        done.undeleted = sorted(trusted.deleted(archive) & jobs)
        for it in believed(archive, trusted):
            if it.job.leaf not in known:
                done.given_up.append(it.receipt["job_id"])
    except ArchiveError as error:
        done.unread = str(error)


def _token(data_dir: Path) -> bytes:
    try:
        return (data_dir / "token").read_bytes().strip()
    except OSError:
        return b""


def _put_token_aside(data_dir: Path, stamp: str, done: Recovered) -> None:
    token, aside = data_dir / "token", data_dir / f"token.before-{stamp}"
    if token.exists():
        token.rename(aside)
        done.aside["token"] = str(aside)


def _note(done: Recovered, name: str, aside: Path | None) -> None:
    if aside is not None:
        done.aside[name] = str(aside)


def _stamp() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f".{time.time_ns() % 1_000_000_000:09}"


def _remove(partial: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        partial.with_name(f"{partial.name}{suffix}").unlink(missing_ok=True)


__all__ = ["ArchiveError", "Recovered", "RecoveryError", "go_on", "recover"]
