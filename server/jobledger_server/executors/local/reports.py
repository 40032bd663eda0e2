"""What a job says of itself while it runs, kept for the server and for its next attempt.

Standard library and `joblog` alone.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.guarded_files import write_text
from jobledger_server.executors.local.messages import (
    Checkpoint,
    Declaration,
    LogLine,
    Message,
    MessageReader,
    Misdeclaration,
    Progress,
)
from jobledger_server.joblog.redaction import NO_SECRETS, Secrets

READ_SIZE = 65536
INTERVAL, RETRY_SECONDS = 0.1, 0.5
MOST_ARTIFACTS, MOST_MISDECLARED = 1000, 100
CHECKPOINT = "checkpoint.json"
NEVER = float("inf")


class Latest:
    """A file of which only the latest state counts: replaced ten times a second at most.

    Attributes:
        due: when it is to be written, by the monotonic clock.
    """

    def __init__(self, path: Path, content: Callable[[], str], *, durable: bool) -> None:
        """Takes what it is to hold from `content`, whenever it is written."""
        self._path = path
        self._content = content
        self._durable = durable
        self._written = 0.0
        self.due = NEVER

    def changed(self) -> None:
        """There is something new to write."""
        self.due = min(self.due, self._written + INTERVAL)

    def write(self, now: float) -> None:
        """Writes it. On a full disk it stays due: it is not worth a job."""
        self.due, self._written = NEVER, now
        try:
            write_text(self._path, self._content(), durable=self._durable)
        except OSError:
            self.due = now + RETRY_SECONDS


class Reports:
    """Takes what comes through the control pipe."""

    def __init__(
        self,
        pipe: int,
        *,
        control: ControlDir,
        job_dir: Path,
        take_log_line: Callable[[bytes], None],
        secrets: Secrets = NO_SECRETS,
    ) -> None:
        """Reads from `pipe`, which never blocks; hides secrets; hands what is for the log to `take_log_line`."""
        self._pipe = pipe
        self._take_log_line = take_log_line
        self._reader = MessageReader(secrets)
        self._progress: dict[str, Any] = {}
        # In the order in which they were declared.
        self._artifacts: dict[str, None] = {}
        self._misdeclared: dict[str, None] = {}
        self._checkpoint = ""
        self._progress_file = Latest(control.progress, lambda: json.dumps(self._progress), durable=False)
        self._artifacts_file = Latest(control.artifacts, self._declared, durable=True)
        # Where the job can read it. What the job puts in its place is replaced, never followed.
        self._checkpoint_file = Latest(job_dir / CHECKPOINT, lambda: self._checkpoint, durable=True)

    @property
    def ignored(self) -> int:
        """How many messages could not be understood, or were too many."""
        return self._reader.ignored

    @property
    def due(self) -> float:
        """When there is something to write, by the monotonic clock."""
        return min(file.due for file in self._files())

    def read(self) -> None:
        """Takes what is there."""
        for chunk in chunks(self._pipe):
            for message in self._reader.feed(chunk):
                self._take(message)

    def ignore(self) -> None:
        """Counts a message that the log did not understand."""
        self._reader.ignored += 1

    def write(self, now: float) -> None:
        """Writes what is due."""
        for file in self._files():
            if now >= file.due:
                file.write(now)

    def finish(self) -> None:
        """Writes what is not written yet."""
        for file in self._files():
            if file.due != NEVER:
                file.write(file.due)

    def _files(self) -> tuple[Latest, ...]:
        return self._progress_file, self._artifacts_file, self._checkpoint_file

    def _take(self, message: Message) -> None:
        match message:
            case LogLine(line):
                self._take_log_line(line)
            case Progress(fields):
                self._progress |= fields
                self._progress_file.changed()
            case Declaration(path):
                self._declare(path, self._artifacts, MOST_ARTIFACTS)
            case Misdeclaration(path):
                self._declare(path, self._misdeclared, MOST_MISDECLARED)
            case Checkpoint(text):
                self._checkpoint = text
                self._checkpoint_file.changed()

    def _declare(self, path: str, known: dict[str, None], most: int) -> None:
        if path in known:
            return
        if len(known) >= most:
            self.ignore()
            return
        known[path] = None
        self._artifacts_file.changed()

    def _declared(self) -> str:
        return json.dumps({"paths": list(self._artifacts), "misdeclared": list(self._misdeclared)})


def chunks(descriptor: int) -> Iterator[bytes]:
    """What can be read now, at most 16 chunks: a chatty job must not keep us from the rest."""
    for _ in range(16):
        try:
            yield os.read(descriptor, READ_SIZE)
        except BlockingIOError:
            return
