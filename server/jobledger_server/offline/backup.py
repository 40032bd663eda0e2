"""`jobledger backup`: a copy of an installation, running or not, from which a server can be started.

In this order, so that what is copied later has all that what was copied earlier tells of: the archive (the database may
be ahead of it, never behind), the blobs and logs that are there, the database, the blobs and logs that came or changed
since. So a sweep or DeleteJob in between takes nothing away that the copied database tells of. All is checked on the
way, and what is not as it should be is named.

Left out: control directories and sockets, so that a copy never has to do with processes of the original; `token`, of
which the database has the hash alone; directories of jobs, of which receipts need nothing; and private keys.
"""

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from jobledger_server.access.data_dir import check_data_dir
from jobledger_server.archive.believing import Trusted, believed
from jobledger_server.archive.deletions import FILE as DELETIONS
from jobledger_server.archive.files import ReceiptArchive
from jobledger_server.core.archive import SEAL_START
from jobledger_server.core.ports.archive import ArchiveError
from jobledger_server.offline.copying import copy_blob, copy_file
from jobledger_server.offline.log_copies import LogCopies
from jobledger_server.service import key_files, restored
from jobledger_server.stores.sqlite.inspection import KeptLog, inspect, logs_of
from jobledger_server.stores.sqlite.rebuild import part_ways

DATABASE = "jobledger.db"
PUBLIC_KEYS, PRIVATE_KEYS = (key_files.KEYS, key_files.LOG_VKEY), (key_files.RECEIPT_KEY, "pages.key")


class BackupError(Exception):
    """It can't be done; the message says why, and what to do. Nothing is left of it."""


@dataclass(kw_only=True)
class BackedUp:
    """What was copied.

    Attributes:
        missing, damaged: blobs, by hash, that were not there or no longer match.
        missing_logs: jobs of which the copied database says that they have a log, which was not there.
        archive: what is wrong with the archive of receipts; empty where nothing is.
    """

    target: str = ""
    keys: str | None = None
    receipts: int = 0
    unfinished: int = 0
    blobs: int = 0
    bytes: int = 0
    missing: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    missing_logs: tuple[str, ...] = ()
    archive: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether nothing was missing or damaged."""
        return not (self.missing or self.damaged or self.missing_logs or self.archive)


def back_up(data_dir: Path, target: Path, *, keys: Path | None = None) -> BackedUp:
    """Makes the copy under another name, and gives it its own when it is whole and on the disk.

    Args:
        target: where the copy is to be; nothing may be there yet.
        keys: where the private keys are to be copied, if they are; the log's is not, since a copy has a log of its own.

    Raises:
        BackupError: there is no installation, something is there already, or the keys would lie in the copy.
        PrivateFileError: others than the installation's owner may have put there what is in it.
        OSError, sqlite3.Error: it can't be read or written; nothing is left of it.
    """
    target, keys = target.absolute(), None if keys is None else keys.absolute()
    _refuse(data_dir, target, keys)
    for place in (target, keys):
        if place is not None:
            _make_parent(place)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    try:
        done = _copy(data_dir, partial)
        done.target = str(target)
        restored.mark(partial, {"taken_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **asdict(done)})
        if keys is not None:
            _copy_keys(data_dir / "keys", keys)
            done.keys = str(keys)
        os.sync()
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return done


def _make_parent(place: Path) -> None:
    """Before anything is copied: it may take long."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BackupError(
            f"{place} can't be made, since the directory {place.parent} can't: {error.strerror}. "
            "Make it, or name another place"
        ) from None


def _refuse(data_dir: Path, target: Path, keys: Path | None) -> None:
    if not (data_dir / DATABASE).exists():
        raise BackupError(f"There is no installation in {data_dir}: name its directory with --data-dir")
    # Root may copy what is another user's; that user alone may have put it there all the same.
    check_data_dir(data_dir, owner=data_dir.stat().st_uid)
    for place in (target, keys):
        if place is not None and (place.exists() or place.is_symlink()):
            raise BackupError(f"{place} exists already, and is left as it is: name a new directory")
        if place is not None and place.resolve().is_relative_to(data_dir.resolve()):
            raise BackupError(f"{place} lies in the installation itself: name a place outside of {data_dir}")
    if keys is not None and (keys.resolve().is_relative_to(target.resolve()) or keys.resolve() == target.resolve()):
        raise BackupError(
            f"{keys} lies in the backup: who has both can sign receipts. Keep the keys in another place, and apart"
        )
    if keys is not None and target.resolve().is_relative_to(keys.resolve()):
        raise BackupError(f"{target} lies where the keys are to be: keep them apart")


def _copy(data_dir: Path, partial: Path) -> BackedUp:
    done = BackedUp()
    for name in ("receipts", "blobs", "keys", "logs"):
        (partial / name).mkdir(mode=0o700)
    done.archive = _copy_archive(data_dir, partial)
    began = time.time()
    logs = LogCopies(data_dir / "logs", partial / "logs")
    logs.copy_all()
    seen: set[str] = set()
    _copy_blobs(data_dir, partial, _there(data_dir / "blobs"), seen, done)
    _snapshot(data_dir / DATABASE, partial / DATABASE)
    needed = _needed(partial / DATABASE)
    _copy_blobs(data_dir, partial, needed - seen - {*done.damaged}, seen, done)
    done.damaged = tuple(sha256 for sha256 in done.damaged if sha256 in needed)
    for sha256 in seen - needed:
        # It came after the database was copied, or is garbage: nothing in the copy names it.
        path = partial / "blobs" / sha256[:2] / sha256[2:]
        done.bytes -= path.stat().st_size
        path.unlink()
    found = inspect(partial / DATABASE, leaf_index=0)
    if found.trouble:
        raise BackupError(f"The copy of the database can't be used: {found.trouble}")
    part_ways(partial / DATABASE)
    done.receipts, done.unfinished, done.blobs = found.receipts, len(found.unfinished), len(needed & seen)
    done.missing = tuple(sorted(needed - seen - {*done.damaged}))
    done.missing_logs = _copy_logs(logs, logs_of(partial / DATABASE, since=began - 1))
    done.bytes += logs.bytes
    for name in PUBLIC_KEYS:
        done.bytes += copy_file(data_dir / "keys" / name, partial / "keys" / name) or 0
    done.bytes += (partial / DATABASE).stat().st_size
    return done


def _copy_logs(logs: LogCopies, kept: Iterable[KeptLog]) -> tuple[str, ...]:
    """Those that came or changed since the first pass. Names jobs whose log is missing."""
    there, missing = [], []
    for log in kept:
        # One that ended since had not said all of it in the first pass.
        is_whole = logs.copy(log.job_id) if log.may_have_grown else logs.is_there(log.job_id) or logs.copy(log.job_id)
        there.append(log.job_id)
        if log.has_ended and log.has_entries and not is_whole:
            missing.append(log.job_id)
    logs.keep(there)
    return tuple(sorted(missing))


def _copy_archive(data_dir: Path, partial: Path) -> str:
    """As far as it is whole; a server may be appending to it. Says what is wrong with it; empty where nothing is."""
    source, target = data_dir / "receipts", partial / "receipts"
    told = ReceiptArchive(source).told()
    for file in ReceiptArchive(source).segments():
        data = file.read_bytes()
        end = data.rfind(b"\n") + 1
        start = data.rfind(b"\n", 0, max(end - 1, 0)) + 1
        whole = data[:end] if data[start:end].startswith(SEAL_START) else data[:start]
        if whole:
            (target / file.name).write_bytes(whole)
            (target / file.name).chmod(0o600)
    copy_file(source / DELETIONS, target / DELETIONS)
    archive = ReceiptArchive(target)
    if not archive.segments() and told is None:
        return ""
    try:
        trusted = Trusted.read(data_dir / "keys")
        trusted.deleted(archive)
        for _ in believed(archive, trusted, checkpoint=told):
            pass
    except ArchiveError as error:
        return str(error)
    return ""


def _snapshot(source: Path, target: Path) -> None:
    """The database as it is at one moment. Who writes meanwhile does not wait, and is not waited for."""
    target.touch(mode=0o600)
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as original,
        closing(sqlite3.connect(target)) as copy,
    ):
        original.backup(copy, pages=-1)
        # One file, whatever the original's mode.
        copy.execute("PRAGMA journal_mode = DELETE")


def _needed(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        return {sha256 for (sha256,) in connection.execute("SELECT DISTINCT sha256 FROM artifacts WHERE sha256 > ''")}


def _there(blobs: Path) -> set[str]:
    return {path.parent.name + path.name for path in blobs.glob("[0-9a-f][0-9a-f]/*") if len(path.name) == 62}


def _copy_blobs(data_dir: Path, partial: Path, hashes: set[str], seen: set[str], done: BackedUp) -> None:
    """Copies them, and checks their bytes on the way. `seen` grows by those that are copied."""
    for sha256 in sorted(hashes):
        size = copy_blob(data_dir / "blobs", partial / "blobs", sha256)
        if size is None:
            continue
        if size < 0:
            done.damaged = (*done.damaged, sha256)
            continue
        seen.add(sha256)
        done.bytes += size


def _copy_keys(source: Path, target: Path) -> None:
    """Under another name first, too."""
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    for name in (*PRIVATE_KEYS, *PUBLIC_KEYS):
        copy_file(source / name, partial / name)
    partial.rename(target)
