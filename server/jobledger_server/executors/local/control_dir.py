"""The directory through which server and shim talk about one attempt. Standard library only.

Written by the server: `spec.json` (once), `cancel.json`, `input.log`. Written by the shim: `lock` (held as long as it
lives, and by the nursery until nothing of what it left behind lives), `started.json` (created at most once, before
anything is started), `progress.json`, `artifacts.json` (paths that the job declared, in that order), `input.ack`,
`wake` (once it can be woken), `shim.err` (if something went wrong), `exit.json` (last of all: nothing of the job is
left). `overdue`: the server has given up the shim. Files that are replaced are replaced atomically. Whoever writes
wakes the other through a FIFO; a wake that is lost costs a second, never more.

Where nothing isolates a job it can write here, too. So nothing that is read here is trusted to be what was written: a
file that is not one, or not of the kind that is expected, is `UnreadableError`, and keeps nobody waiting. That what is
said there was said by the shim nobody can tell; but nothing of it counts as the end while the lock is held.

`spec.json` names the protocol, in every version of it. What is only added keeps the number; what a server or a
supervisor that does not know of it would get wrong raises it. A server takes over what was started under an earlier
protocol; while there is a job that was started under a later one it does not start, and touches nothing.
"""

import contextlib
import errno
import fcntl
import json
import os
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard, cast

PROTOCOL = 1
LOCK_PATIENCE = 1.0
RECORD_HEAD = struct.Struct("<IB")
ACK = struct.Struct("<Q")
# More than a request to create a job can bring about.
MOST_BYTES = 16 * 1024 * 1024
LARGEST_NUMBER = 2**63
# Never waits for whoever is at the other end of a FIFO, never follows a link.
COMPLAINING = os.O_WRONLY | os.O_APPEND | os.O_CREAT
GUARDED = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
# What `open` says of something that is no file that we could have written.
FOREIGN = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR, errno.EACCES})


class UnreadableError(ValueError):
    """A file is not as server and shim write it: somebody else has put something in its place."""


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
        self.overdue = path / "overdue"

    @property
    def server_wake(self) -> Path:
        """FIFO of the server that all shims wake."""
        return self.path.parent.parent / "run" / "wake"

    def wake_server(self) -> None:
        """Has the server look at this attempt."""
        job_id, _, attempt = self.path.name.rpartition(".")
        poke(self.server_wake, f"{job_id} {attempt}\n".encode())

    def complain(self, text: str) -> None:
        """Notes what went wrong, where that can be. Mostly nothing does, and there is no file."""
        with contextlib.suppress(OSError, UnreadableError), open_guarded(self.shim_errors, COMPLAINING, "ab") as errors:
            errors.write(f"{text.rstrip()}\n".encode("utf-8", "surrogateescape"))

    def open_lock(self) -> int:
        """A descriptor for `take_lock`. Once that is done the lock is held until all its copies are closed."""
        try:
            return os.open(self.lock, os.O_RDWR | os.O_CREAT | GUARDED, 0o600)
        except OSError as error:
            if error.errno not in FOREIGN:
                raise
        _set_aside(self.lock)
        return os.open(self.lock, os.O_RDWR | os.O_CREAT | GUARDED, 0o600)

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
            descriptor = os.open(self.lock, os.O_RDONLY | GUARDED)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in FOREIGN:
                return False
            raise
        try:
            return not _flock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def read_started(self) -> dict[str, Any] | None:
        """What the shim said when it had started the process.

        None: it never began. Empty: it has begun and not yet said, or what it said was lost with the machine. Else
        there are all of `shim`, `pid`, `started_at`, `pid_started` and `boot_id`.
        """
        try:
            said = read_json(self.started)
        except UnreadableError:
            return {}
        if said is None:
            return None
        numbers = all(type(said.get(name)) is int for name in ("shim", "pid", "started_at", "pid_started"))
        return said if numbers and isinstance(said.get("boot_id"), str) else {}

    def cancel_request(self) -> float | None:
        """Grace period in seconds of a request to cancel, if there is one.

        Raises:
            UnreadableError: there is something in its place.
        """
        request = read_json(self.cancel)
        if request is None:
            return None
        grace = request.get("grace_seconds")
        if not is_finite(grace):
            raise UnreadableError(f"{self.cancel} names no grace period")
        return float(grace)

    def append_input(self, data: bytes, *, close: bool) -> None:
        """Queues a follow-up, durably.

        Raises:
            UnreadableError: there is something in the place of the queue.
        """
        with open_guarded(self.input_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, "ab") as log:
            log.write(RECORD_HEAD.pack(len(data), close) + data)
            log.flush()
            os.fsync(log.fileno())

    def close_input(self) -> None:
        """Records that the standard input takes no more."""
        os.close(os.open(self.input_closed, os.O_WRONLY | os.O_CREAT | GUARDED, 0o600))

    def inputs(self, offset: int = 0) -> Iterator[tuple[int, bytes, bool]]:
        """Whole follow-ups from `offset` on: where the next one begins, the bytes, whether to close after them."""
        try:
            log = open_guarded(self.input_log)
        except (FileNotFoundError, UnreadableError):
            return
        with log:
            log.seek(offset)
            while len(head := log.read(RECORD_HEAD.size)) == RECORD_HEAD.size:
                length, close = RECORD_HEAD.unpack(head)
                if length > MOST_BYTES:
                    return
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
        descriptor = os.open(self.input_ack, os.O_WRONLY | os.O_CREAT | GUARDED, 0o600)
        try:
            os.pwrite(descriptor, ACK.pack(count), 0)
        finally:
            os.close(descriptor)

    def acknowledged(self) -> int:
        """How many follow-ups the process has taken."""
        try:
            record = read_bytes(self.input_ack)
        except (FileNotFoundError, UnreadableError):
            return 0
        return int(ACK.unpack(record)[0]) if len(record) == ACK.size else 0


def write_json(path: Path, value: object, *, durable: bool = True) -> None:
    """Replaces a file by a JSON document: readers see the old one or the new one.

    A directory in its place is moved aside: it must keep nobody from asking for an end, or from telling of it.
    """
    text = json.dumps(value)
    try:
        write_text(path, text, durable=durable)
    except IsADirectoryError:
        _set_aside(path)
        write_text(path, text, durable=durable)


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
    """The JSON object in a file, or None where there is no such file.

    Raises:
        UnreadableError: what is there is not one.
        OSError: it can't be read just now.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return None
    try:
        value = json.loads(content.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path} is not JSON") from error
    if not isinstance(value, dict):
        raise UnreadableError(f"{path} holds no JSON object")
    return value


def read_bytes(path: Path) -> bytes:
    """What is in a file.

    Raises:
        UnreadableError: it is no file, or larger than any that is written here.
        OSError: it is not there, or can't be read just now.
    """
    with open_guarded(path) as file:
        # No more than it has: whoever reads makes room for all that is asked for.
        content = file.read(min(os.fstat(file.fileno()).st_size, MOST_BYTES) + 1)
    if len(content) > MOST_BYTES:
        raise UnreadableError(f"{path} is larger than {MOST_BYTES} bytes")
    return content


def open_guarded(path: Path, flags: int = os.O_RDONLY, mode: str = "rb") -> BinaryIO:
    """Opens a file without waiting for anybody, and without following a link.

    Args:
        flags: as for `os.open`; `mode`: the same, as for `open`.

    Raises:
        UnreadableError: it is no file.
        OSError: it is not there, or can't be opened just now.
    """
    try:
        descriptor = os.open(path, flags | GUARDED, 0o600)
    except OSError as error:
        if error.errno in FOREIGN:
            raise UnreadableError(f"{path} is not a file that can be opened") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableError(f"{path} is not a file")
    return cast("BinaryIO", os.fdopen(descriptor, mode))


def is_finite(value: object) -> TypeGuard[float]:
    """Whether something that was read is a number that can be reckoned with."""
    return isinstance(value, int | float) and -LARGEST_NUMBER < value < LARGEST_NUMBER


def sync_directory(path: Path) -> None:
    """Makes names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def poke(fifo: Path, message: bytes) -> None:
    """Wakes whoever reads a FIFO. Nothing happens where that can't be done: a wake is a hint, and worth no job."""
    with contextlib.suppress(OSError):
        descriptor = os.open(fifo, os.O_WRONLY | GUARDED)
        try:
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.write(descriptor, message)
        finally:
            os.close(descriptor)


def open_fifo(path: Path) -> int:
    """Makes a FIFO anew and opens it for reading, so that it never ends and nobody waits to open it."""
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        _clear(path)
        os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _clear(path: Path) -> None:
    try:
        path.unlink()
    except IsADirectoryError:
        _set_aside(path)


def _set_aside(path: Path) -> None:
    """Makes room for a file where somebody has put something else."""
    path.rename(path.with_suffix(f".{os.urandom(4).hex()}.tmp"))


def _flock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
