"""The directory through which server and shim talk about one attempt. Standard library and `joblog` only.

Written by the server: `spec.json` (once), `cancel.json`, `input.log`. Written by the shim: `lock` (held as long as it
lives, and by the nursery until nothing of what it left behind lives), `started.json` (created at most once, before
anything is started), `progress.json`, `artifacts.json` (paths that the job declared, in that order), `input.ack`,
`wake` (once it can be woken), `shim.err` (if something went wrong). Last of all, when nothing of the job is left, the
end: behind what `started.json` says, in room that was taken at the start, so that neither a full disk nor a second file
stands in its way; or in `exit.json`, where it does not fit there, or the server tells of it. `overdue`: the server has
given up the shim. Files that are replaced are replaced atomically. Whoever writes wakes the other through a FIFO; a
wake that is lost costs a second, never more.

Where nothing isolates a job it can write here, too. So nothing that is read here is trusted to be what was written: a
file that is not one, or not of the kind that is expected, is `UnreadableError`, and keeps nobody waiting. That what is
said there was said by the shim nobody can tell; but nothing of it counts as the end while the lock is held.

`spec.json` names the protocol, in every version of it. What is only added keeps the number; what a server or a
supervisor that does not know of it would get wrong raises it. A server takes over what was started under an earlier
protocol; while there is a job that was started under a later one it does not start, and touches nothing. Under protocol
1 the end stood in `exit.json` alone, and a control group in the file `cgroup`.
"""

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jobledger_server.executors.local import record
from jobledger_server.executors.local.guarded_files import (
    FOREIGN,
    GUARDED,
    MOST_BYTES,
    UnreadableError,
    as_path,
    is_finite,
    open_guarded,
    poke,
    read_bytes,
    read_json,
    set_aside,
)
from jobledger_server.joblog.segments import END_OF_TIME

PROTOCOL = 2
LOCK_PATIENCE = 1.0
RECORD_HEAD = struct.Struct("<IB")
ACK = struct.Struct("<Q")
# Of the numbers that tell of a start: the first that none of them can be.
ENDS = {"shim": 2**31, "pid": 2**31, "started_at": END_OF_TIME, "pid_started": 2**63}
COMPLAINING = os.O_WRONLY | os.O_APPEND | os.O_CREAT


class FollowUp(NamedTuple):
    """One in the queue: where in it its bytes are, and whether the input ends after them."""

    start: int
    end: int
    close: bool


class Queue(NamedTuple):
    """The follow-ups up to one: how many there are, where the next one begins, and whether the input ends there."""

    number: int = 0
    end: int = 0
    closed: bool = False

    def up_to(self, follow_up: FollowUp) -> "Queue":
        """With the next one."""
        return Queue(self.number + 1, follow_up.end, follow_up.close)

    def bytes_since(self, earlier: "Queue") -> int:
        """What those hold that are not in an earlier one."""
        return self.end - earlier.end - RECORD_HEAD.size * (self.number - earlier.number)


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
        set_aside(self.lock)
        return os.open(self.lock, os.O_RDWR | os.O_CREAT | GUARDED, 0o600)

    def take_lock(self, descriptor: int | None = None, *, unless: Callable[[], bool] = lambda: False) -> int | None:
        """Takes the lock, by a descriptor that is there or a new one. Returns that; None where another one has it.

        Patient for a second, as long as there is no reason (`unless`) to give way: someone may be looking whether it
        is taken.
        """
        descriptor = self.open_lock() if descriptor is None else descriptor
        deadline = time.monotonic() + LOCK_PATIENCE
        while not _flock(descriptor, fcntl.LOCK_EX):
            if unless() or time.monotonic() > deadline:
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
        said = self._record(record.start_of)
        if said is None:
            return None
        numbers = all(type(said.get(name)) is int and 0 <= said[name] < end for name, end in ENDS.items())
        return said if numbers and isinstance(said.get("boot_id"), str) else {}

    def read_end(self) -> dict[str, Any]:
        """What the shim said last; empty where it has not, or where what it said is not whole."""
        return self._record(record.end_of) or {}

    def read_group(self) -> Path | None:
        """Where its control group is said to be: `cgroup.recorded` tells whether that can be."""
        return as_path((self._record(record.start_of) or {}).get("cgroup"))

    def _record(self, part: Callable[[bytes], dict[str, Any]]) -> dict[str, Any] | None:
        try:
            return part(read_bytes(self.started))
        except FileNotFoundError:
            return None
        except UnreadableError:
            return {}

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

    def append_input(self, data: bytes, *, close: bool) -> FollowUp:
        """Queues a follow-up, durably. Where that fails, part of it may be there.

        Raises:
            UnreadableError: there is something in the place of the queue.
        """
        with open_guarded(self.input_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, "ab") as log:
            log.write(RECORD_HEAD.pack(len(data), close) + data)
            log.flush()
            os.fsync(log.fileno())
            end = os.lseek(log.fileno(), 0, os.SEEK_CUR)
        return FollowUp(end - len(data), end, close)

    def close_input(self) -> None:
        """Records that the standard input takes no more."""
        os.close(os.open(self.input_closed, os.O_WRONLY | os.O_CREAT | GUARDED, 0o600))

    def follow_ups(self, offset: int = 0) -> Iterator[FollowUp]:
        """Whole follow-ups from `offset` on, where one begins."""
        try:
            log = open_guarded(self.input_log)
        except (FileNotFoundError, UnreadableError):
            return
        with log:
            size = os.fstat(log.fileno()).st_size
            while len(head := os.pread(log.fileno(), RECORD_HEAD.size, offset)) == RECORD_HEAD.size:
                length, close = RECORD_HEAD.unpack(head)
                start, offset = offset + RECORD_HEAD.size, offset + RECORD_HEAD.size + length
                if length > MOST_BYTES or offset > size:
                    return
                yield FollowUp(start, offset, bool(close))

    def read_input(self, offset: int, length: int) -> bytes:
        """Bytes of follow-ups; fewer where there are no more, or somebody else has put something in their place."""
        try:
            with open_guarded(self.input_log) as log:
                return os.pread(log.fileno(), length, offset)
        except (FileNotFoundError, UnreadableError):
            return b""

    def repair_inputs(self) -> Queue:
        """Cuts off a follow-up that a crash or a full disk left incomplete. Returns what there is."""
        queue = Queue()
        for follow_up in self.follow_ups():
            queue = queue.up_to(follow_up)
        missing = contextlib.suppress(FileNotFoundError, UnreadableError)
        with missing, open_guarded(self.input_log, os.O_RDWR, "r+b") as log:
            if os.fstat(log.fileno()).st_size > queue.end:
                os.ftruncate(log.fileno(), queue.end)
        return queue

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


def _flock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
