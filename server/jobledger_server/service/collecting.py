"""Collects what a job left in `output/` into the blob store.

A job is not trusted: nothing is followed that could lead out of its directory, and what is refused is named. What is
collected is durable before anything names it.
"""

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from jobledger_server.core.artifacts import Output
from jobledger_server.core.beneath import open_beneath
from jobledger_server.core.output_names import reason_to_refuse_declared, told
from jobledger_server.core.ports import BlobBatch, Blobs, FileChangedError
from jobledger_server.core.receipt_room import ReceiptRoom
from jobledger_server.service.holes import bytes_in_holes
from jobledger_server.service.outputs import NO_OUTPUT, Asked, found_below, leaves_nothing, open_output

# Of a job's files together, in bytes: to read and to hash them takes time, which nobody paid for by writing.
MOST_IN_HOLES = 1024 * 1024 * 1024
# Gigabytes are collected beside whatever else threads are for, never in place of it.
THREADS = 4
FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY

# What the machine lacks just now: worth another try, and no fault of the file.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something under `output/` that is not an artifact, and why. Without a path it is about many."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Collected:
    """Everything that was found, by path."""

    outputs: Sequence[Output]
    refused: Sequence[Refusal]


class StoppedError(Exception):
    """Nobody waits for the collection any more."""


class Collector:
    """Copies a job's output into the blob store."""

    def __init__(self, *, blobs: Blobs) -> None:
        self._blobs = blobs
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="collector")

    def protecting(self) -> AbstractContextManager[None]:
        """What is collected in this block is not deleted before it is left: store within it that it is needed."""
        return self._blobs.protecting()

    async def collect(
        self,
        output_dir: Path,
        globs: Sequence[str],
        declared: Collection[str] = (),
        *,
        misdeclared: Sequence[str] = (),
        withheld: Collection[int] = (),
        most_bytes: int | None = None,
    ) -> Collected:
        """Collects the files that the globs name (all, where there are none). Called when the job's tree is dead.

        All of them are stored, or none.

        Args:
            declared: paths that are collected too, whatever the globs name; one that is not there is refused.
            misdeclared: what was declared and can't be: refused by name.
            withheld: inodes of what has a name that must not be told.
            most_bytes: of all of them together, holes included: a file is refused that would be past it.

        Raises:
            OSError: there is no room for them just now; nothing is lost by asking again.
        """
        if not declared and not misdeclared and leaves_nothing(output_dir):
            return Collected((), ())
        stopped = threading.Event()
        collection = _Collection(self._blobs, stopped, most_bytes)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads,
                collection.run,
                output_dir,
                Asked(globs, frozenset(declared), frozenset(withheld)),
                misdeclared,
            )
        finally:
            # Where the caller was cancelled, the thread ends after the chunk that it is at.
            stopped.set()


class _Collection:
    """One run through what a job left, in a thread."""

    def __init__(self, blobs: Blobs, stopped: threading.Event, most_bytes: int | None) -> None:
        self._blobs = blobs
        self._stopped = stopped
        self._bytes_left = most_bytes
        self._holes_left = MOST_IN_HOLES
        self._room = ReceiptRoom()
        self._outputs: list[Output] = []
        self._refused: list[Refusal] = []

    def run(self, output_dir: Path, asked: Asked, misdeclared: Sequence[str]) -> Collected:
        try:
            top = open_output(output_dir)
        except OSError as error:
            _raise_shortage(error)
            self._refuse("", NO_OUTPUT)
        else:
            self._collect(top, asked)
        named = {refusal.path for refusal in self._refused}
        for path in misdeclared:
            if path not in named:
                self._refuse(told(path), reason_to_refuse_declared(path))
        self._refused += [Refusal("", said) for said in self._room.summary()]
        return Collected(self._outputs, sorted(self._refused, key=lambda refusal: refusal.path))

    def _collect(self, top: int, asked: Asked) -> None:
        try:
            with self._blobs.batch() as batch:
                for found in found_below(top, asked):
                    self._go_on()
                    if reason := found.reason or self._copy(top, found.path, batch):
                        self._refuse(found.path, reason)
                batch.keep()
        finally:
            os.close(top)

    def _refuse(self, path: str, reason: str) -> None:
        if self._room.takes_refusal(path, reason):
            self._refused.append(Refusal(path, reason))

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise StoppedError

    def _copy(self, top: int, path: str, batch: BlobBatch) -> str:
        """Adds a file. Returns why it is refused; empty where it was added, or is counted as one without room."""
        try:
            descriptor = open_beneath(top, path, FILE)
            try:
                holes = bytes_in_holes(descriptor)
                reason = _reason_to_refuse(descriptor, self._bytes_left, holes, self._holes_left)
                return reason or self._add(descriptor, path, batch, holes)
            finally:
                os.close(descriptor)
        except FileChangedError as change:
            return str(change)
        except OSError as error:
            _raise_shortage(error)
            return f"can't be read: {error.strerror}"

    def _add(self, descriptor: int, path: str, batch: BlobBatch, holes: int) -> str:
        if not self._room.takes_output(path):
            return ""
        self._holes_left -= holes
        sha256, size = batch.add(descriptor, check=self._go_on)
        self._outputs.append(Output(path, size, sha256))
        self._bytes_left = None if self._bytes_left is None else self._bytes_left - size
        return ""


def _raise_shortage(error: OSError) -> None:
    if error.errno in SHORTAGES:
        raise error


def _reason_to_refuse(descriptor: int, left: int | None, holes: int, holes_left: int) -> str:
    """Why an open file is no artifact, though its name would do; empty where it is one.

    Args:
        left: bytes that may still be collected; None for as many as there is room for.
        holes: bytes of it that are holes, of which `holes_left` may still be collected.
    """
    status, disk = os.fstat(descriptor), os.fstatvfs(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_nlink > 1:
        return "has more than one hard link"
    if left is not None and status.st_size > left:
        return f"its {status.st_size} bytes are past the limit of the job (limits.disk_bytes), of which {left} are left"
    if holes and status.st_size > disk.f_bavail * disk.f_frsize:
        # What has none will find room one day, for it has found some once.
        return f"its {status.st_size} bytes, holes included, are more than the disk has room for"
    if holes > holes_left:
        return (
            f"sparse: {holes} of its {status.st_size} bytes are holes; a job's files may have {MOST_IN_HOLES} together"
        )
    return ""
