"""The control channel: lines of JSON to the job's supervisor."""

import json
import os
import select
from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any

# What the reader takes, with the end of the line.
MAX_LINE = 64 * 1024
LOCK_PAUSE = 0.005


class NotAJobError(RuntimeError):
    """This process does not run as a job, so it has no id, configuration or output directory."""


def variable(name: str) -> str:
    """A variable that each job has.

    Raises:
        NotAJobError: this is not a job.
    """
    if value := os.environ.get(name):
        return value
    raise NotAJobError(
        f"{name} is not set: this is not running as a Jobledger job. Start it with `jobledger run`, "
        "or set the variable to try it by hand"
    )


def line(message: Mapping[str, Any]) -> bytes:
    """The message as it travels."""
    # A lone surrogate, as names of files have them, is no text for the reader.
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def send(line: bytes, *, patience: float = 0.0) -> bool:
    """Whether the control channel took the line within `patience` seconds.

    It is opened anew for each line, so that threads and forks share nothing, a job may close what it did not open, and
    nobody is killed by SIGPIPE for writing to a reader that has long gone. Up to PIPE_BUF bytes go in one piece; a
    longer line goes in several, and a lock keeps those of others out meanwhile.
    """
    path = os.environ.get("JOBLEDGER_CONTROL")
    if not path or len(line) > MAX_LINE:
        return False
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    deadline = monotonic() + patience
    try:
        return _lock(descriptor, len(line) > select.PIPE_BUF, deadline) and _write(descriptor, line, deadline)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _lock(descriptor: int, alone: bool, deadline: float) -> bool:
    """Takes the channel until it is closed: alone, or with others whose lines go in one piece. False: no time left."""
    import fcntl  # not there on Windows, where there is no channel either

    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_NB | (fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
            return True
        except BlockingIOError:
            if monotonic() >= deadline:
                return False
            sleep(LOCK_PAUSE)
        except OSError:
            # A system without locks on pipes. A line that is torn now and then is better than none.
            return True


def _write(descriptor: int, line: bytes, deadline: float) -> bool:
    """Writes all of the line, if there is room in time. What is cut short is not understood, nor is the next line."""
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    while True:
        try:
            line = line[os.write(descriptor, line) :]
            if not line:
                return True
        except BlockingIOError:
            left = deadline - monotonic()
            if left <= 0 or not any(found & select.POLLOUT for _, found in room.poll(1000 * left)):
                return False
