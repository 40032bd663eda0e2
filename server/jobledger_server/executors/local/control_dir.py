"""The directory through which server and shim talk about one attempt. Standard library only.

Written by the server: `spec.json` (once), `cancel.json`, `input.log`. Written by the shim: `lock` (held as long as it
lives, and by the nursery until nothing of what it left behind lives), `started.json` (created at most once, before
anything is started), `progress.json`, `artifacts.json` (paths that the job declared, in that order), `input.ack`,
`exit.json` (last of all: nothing of the job is left). Files that are replaced are replaced atomically. Whoever writes
wakes the other through a FIFO; a wake that is lost costs a second, never more.

`spec.json` names the protocol, in every version of it. What is only added keeps the number; what a server or a
supervisor that does not know of it would get wrong raises it. A server takes over what was started under an earlier
protocol; while there is a job that was started under a later one it does not start, and touches nothing.
"""

import errno
import fcntl
import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROTOCOL = 1
LOCK_PATIENCE = 1.0
RECORD_HEAD = struct.Struct("<IB")
ACK = struct.Struct("<Q")


class ControlDir:
    """Paths of an attempt's control directory, and how they are read and written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = path / "spec.json"
        self.lock = path / "lock"
        self.started = path / "started.json"
        self.cancel = path / "cancel.json"
        self.input_log = path / "input.log"
        self.input_ack = path / "input.ack"
        self.input_closed = path / "input.closed"
        self.progress = path / "progress.json"
        self.artifacts = path / "artifacts.json"
        self.wake = path / "wake"
        self.exit = path / "exit.json"
        self.shim_errors = path / "shim.err"
        self.cgroup = path / "cgroup"

    @property
    def server_wake(self) -> Path:
        """FIFO of the server that all shims wake."""
        return self.path.parent.parent / "run" / "wake"

    def wake_server(self) -> None:
        """Has the server look at this attempt."""
        job_id, _, attempt = self.path.name.rpartition(".")
        poke(self.server_wake, f"{job_id} {attempt}\n".encode())

    def open_lock(self) -> int:
        """A descriptor for `take_lock`. Once that is done the lock is held until all its copies are closed."""
        return os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take_lock(self, descriptor: int | None = None) -> int | None:
        """Takes the lock, by a descriptor that is there or a new one. Returns that; None where another one has it.

        Patient for a second: someone may be looking whether it is taken.
        """
        descriptor = self.open_lock() if descriptor is None else descriptor
        deadline = time.monotonic() + LOCK_PATIENCE
        while not _flock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(0.02)
        return descriptor

    def lock_is_held(self) -> bool:
        """Whether a shim lives, or something of what it left behind."""
        try:
            descriptor = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _flock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def read_started(self) -> dict[str, Any] | None:
        """What the shim said when it had started the process.

        None: it never began. Empty: it has begun and not yet said, or what it said was lost with the machine.
        """
        try:
            return read_json(self.started)
        except ValueError:
            return {}

    def cancel_request(self) -> float | None:
        """Grace period in seconds of a request to cancel, if there is one."""
        request = read_json(self.cancel)
        return float(request["grace_seconds"]) if request else None

    def append_input(self, data: bytes, *, close: bool) -> None:
        """Queues a follow-up, durably."""
        with self.input_log.open("ab") as log:
            log.write(RECORD_HEAD.pack(len(data), close) + data)
            log.flush()
            os.fsync(log.fileno())

    def close_input(self) -> None:
        """Records that the standard input takes no more."""
        os.close(os.open(self.input_closed, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def inputs(self, offset: int = 0) -> Iterator[tuple[int, bytes, bool]]:
        """Whole follow-ups from `offset` on: where the next one begins, the bytes, whether to close after them."""
        try:
            log = self.input_log.open("rb")
        except FileNotFoundError:
            return
        with log:
            log.seek(offset)
            while len(head := log.read(RECORD_HEAD.size)) == RECORD_HEAD.size:
                length, close = RECORD_HEAD.unpack(head)
                data = log.read(length)
                if len(data) < length:
                    return
                offset += RECORD_HEAD.size + length
                yield offset, data, bool(close)

    def repair_inputs(self) -> int:
        """Cuts off a follow-up that a crash left incomplete. Returns how many there are."""
        ends = [end for end, _, _ in self.inputs()]
        whole = ends[-1] if ends else 0
        if self.input_log.exists() and self.input_log.stat().st_size > whole:
            os.truncate(self.input_log, whole)
        return len(ends)

    def acknowledge(self, count: int) -> None:
        """Records that the process has taken the first `count` follow-ups."""
        descriptor = os.open(self.input_ack, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, ACK.pack(count), 0)
        finally:
            os.close(descriptor)

    def acknowledged(self) -> int:
        """How many follow-ups the process has taken."""
        try:
            record = self.input_ack.read_bytes()
        except FileNotFoundError:
            return 0
        return int(ACK.unpack(record)[0]) if len(record) == ACK.size else 0


def write_json(path: Path, value: object, *, durable: bool = True) -> None:
    """Replaces a file by a JSON document: readers see the old one or the new one."""
    write_text(path, json.dumps(value), durable=durable)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replaces a file by a text. What stands in its place is not followed, nor is anything left where it fails."""
    temporary = path.with_suffix(f".{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    value: dict[str, Any] = json.loads(text)
    return value


def sync_directory(path: Path) -> None:
    """Makes names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def poke(fifo: Path, message: bytes) -> None:
    """Wakes whoever reads a FIFO. Nothing happens where nobody does, or where it is full of wakes anyway."""
    try:
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENXIO, errno.ENOENT}:
            return
        raise
    try:
        os.write(descriptor, message)
    except (BlockingIOError, BrokenPipeError):
        return
    finally:
        os.close(descriptor)


def open_fifo(path: Path) -> int:
    """Makes a FIFO anew and opens it for reading, so that it never ends and nobody waits to open it."""
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _flock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
