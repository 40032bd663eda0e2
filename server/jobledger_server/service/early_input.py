"""Follow-ups to a job that waits in the queue: kept, durably and in order, for its start.

Every attempt that starts from then on begins with them, as it would with a text that the specification has for `stdin`.
"""

import json
from pathlib import Path
from typing import NamedTuple

from jobledger_server.access.private_files import replace_file
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.ports import InputClosedError
from jobledger_server.core.ports.executor import MOST_WAITING, MOST_WAITING_BYTES

FILE = "early_input.json"
RETRY_SECONDS = 1.0


class EarlyInput(NamedTuple):
    """What was sent, in order, and whether the input ends after it."""

    texts: tuple[str, ...] = ()
    closed: bool = False

    @property
    def data(self) -> bytes:
        """All of it."""
        return "".join(self.texts).encode()


def read_early_input(log_dir: Path) -> EarlyInput:
    """What is kept beside the job's log, out of its reach; nothing where nothing was sent."""
    try:
        fields = json.loads((log_dir / FILE).read_text("utf-8"))
    except FileNotFoundError:
        return EarlyInput()
    return EarlyInput(tuple(fields["texts"]), fields["closed"])


def keep_early_input(log_dir: Path, text: str, *, close: bool) -> int:
    """Adds a follow-up; returns how many there are. To be called with the job's lock held.

    Raises:
        InputClosedError: the one before ended the input.
        ServiceError: JOB_INPUT_CLOSED, where it is more than is kept.
        OSError: it can't be stored, and is not.
    """
    early = read_early_input(log_dir)
    if early.closed:
        raise InputClosedError
    full = len(early.texts) >= MOST_WAITING and not close
    if full or len(early.data) + len(text.encode()) > MOST_WAITING_BYTES:
        raise ServiceError(
            Reason.ERROR_REASON_JOB_INPUT_CLOSED,
            f"The job is queued, and {MOST_WAITING_BYTES} bytes in {MOST_WAITING} follow-ups at most are kept for its"
            " start: send the rest when it runs",
            retry_after=RETRY_SECONDS,
        )
    texts = [*early.texts, text]
    log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(log_dir / FILE, json.dumps({"texts": texts, "closed": close}).encode(), mode=0o600)
    return len(texts)
