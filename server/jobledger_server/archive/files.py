"""The archive as files: `receipts/<leaf index of the first>.jsonl`, each appended to until it is large.

`receipts/checkpoint` is the latest checkpoint once more, in a file of its own: it tells where the end of the last file
was cut off. It is written after the end is on the disk, so it may be behind, never ahead.
"""

import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobledger.tlog import Checkpoint, LogProofError

from jobledger_server.archive.deletions import append_note
from jobledger_server.core.archive import BODY_START, Batch, read_batch
from jobledger_server.core.durable import sync_path
from jobledger_server.core.ports.archive import ArchiveError, ArchiveHead

log = logging.getLogger(__name__)
LARGE = 16 * 1024 * 1024
SEGMENT = re.compile(r"[0-9]{12}\.jsonl")
CHECKPOINT = "checkpoint"
ADVICE = "`jobledger recover` says what can be done"


class ReceiptArchive:
    """`core.ports.archive.Archive` in a directory of its own, which its owner alone may enter; one writer at a time."""

    def __init__(self, directory: Path, *, large: int = LARGE) -> None:
        self.directory = directory
        self._large = large
        self._file: Path | None = None
        self._end = 0

    def open(self) -> ArchiveHead:
        """As `Archive.open`."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        batch = None
        for file in reversed(self.segments()):
            self._end = _whole(file.read_bytes())
            if self._end:
                self._file, batch = file, _last_batch(file, self._end)
                break
            # A crash came before its first batch was whole.
            file.unlink()
        self._refuse_cut_off(batch.checkpoint.size if batch else 0)
        if batch is None:
            return ArchiveHead()
        return ArchiveHead(
            size=batch.checkpoint.size,
            peaks=batch.frontier.peaks,
            last_leaf=batch.receipts[-1].leaf,
            note=batch.note,
        )

    def append(self, batch: bytes, *, first: int, note: str) -> None:
        """As `Archive.append`."""
        file, end = self._file, self._end
        if file is None or end >= self._large:
            file, end = self.directory / f"{first:012}.jsonl", 0
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # What a crash, or an attempt that failed, left behind the last batch.
            os.ftruncate(descriptor, end)
            _write(descriptor, batch, end)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if end == 0:
            sync_path(self.directory)
        self._file, self._end = file, end + len(batch)
        self._tell(note)

    def note_deleted(self, note: str) -> None:
        """As `Archive.note_deleted`."""
        append_note(self.directory, note)

    def retire(self) -> str:
        """As `Archive.retire`."""
        aside = self.directory.with_name(f"{self.directory.name}.before-{time.time_ns() // 1000}")
        self.directory.rename(aside)
        self.directory.mkdir(mode=0o700)
        sync_path(self.directory.parent)
        self._file, self._end = None, 0
        return str(aside)

    def segments(self) -> Sequence[Path]:
        """The files, in the order of the log."""
        try:
            return sorted(file for file in self.directory.iterdir() if SEGMENT.fullmatch(file.name))
        except FileNotFoundError:
            return []

    def batches(self) -> Iterator[Batch]:
        """All of them in order, without what a crash left half written. Nothing is changed, and no signature checked.

        Raises:
            ArchiveError: one can't be read, or does not fit together; the message names file and line.
        """
        segments = self.segments()
        for file in segments:
            data = file.read_bytes()
            whole = _whole(data)
            if whole != len(data) and file != segments[-1]:
                raise ArchiveError(f"{file.name}: its end is missing or damaged, though there are later receipts")
            lines = data[:whole].splitlines()
            for number in range(0, len(lines), 2):
                try:
                    yield read_batch(*lines[number : number + 2])
                except (ArchiveError, TypeError) as error:
                    raise ArchiveError(f"{file.name}, line {number + 1}: {error}") from None

    def told(self) -> Checkpoint | None:
        """What the file beside says; None where there is none, or a crash of the machine left it empty."""
        try:
            return Checkpoint.parse((self.directory / CHECKPOINT).read_text())
        except (FileNotFoundError, LogProofError, UnicodeDecodeError):
            return None

    def _refuse_cut_off(self, size: int) -> None:
        told = self.told()
        if told is not None and told.size > size:
            raise ArchiveError(
                f"{self.directory} ends after {size} receipts, and its checkpoint has {told.size}: "
                f"its end was cut off or moved away. Put it back, or {ADVICE}"
            )

    def _tell(self, note: str) -> None:
        """Without waiting for the disk: what counts is there already."""
        target = self.directory / CHECKPOINT
        partial = target.with_suffix(".new")
        try:
            with partial.open("w") as file:
                file.write(note)
            partial.replace(target)
        except OSError as error:
            log.warning("%s can't be written: %s", target, error)


def _whole(data: bytes) -> int:
    """How many bytes there are without what a crash cut short: a line without its end, receipts without their seal."""
    end = data.rfind(b"\n") + 1
    start = data.rfind(b"\n", 0, max(end - 1, 0)) + 1
    return start if data[start:end].startswith(BODY_START) else end


def _last_batch(file: Path, end: int) -> Batch:
    data = file.read_bytes()[:end]
    start = data.rfind(b"\n", 0, end - 1) + 1
    before = data.rfind(b"\n", 0, max(start - 1, 0)) + 1
    try:
        return read_batch(data[before : start - 1], data[start : end - 1])
    except ArchiveError as error:
        raise ArchiveError(f"the end of {file} is damaged: {error}; {ADVICE}") from None


def _write(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
