"""Attempts whose supervisor is gone without a word: the end of what nothing is left of is recorded."""

import contextlib
import logging
import os
from typing import Any

from jobledger_server.executors.local import cgroup
from jobledger_server.executors.local.child import PASSING
from jobledger_server.executors.local.control_dir import PROTOCOL, ControlDir
from jobledger_server.executors.local.guarded_files import write_json
from jobledger_server.executors.local.remains import Traces
from jobledger_server.executors.local.statements import Launched, read_launched, read_outcome
from jobledger_server.joblog.writer import LogWriter

GONE = "Its supervisor is gone and left no word: it was killed, or the machine went down"
OVERDUE = "Its supervisor did not end it in time, and was killed: something may have stopped it"
UNKILLABLE = "Something of it still runs though it was killed"

logger = logging.getLogger(__name__)


def bury(control: ControlDir, now: int, *, survived: bool = False) -> None:
    """Repairs the attempt's log and writes `exit.json`.

    Nothing happens where its supervisor lives after all, or the end is recorded already.

    Args:
        now: microseconds since the epoch.
        survived: whether something of it could not be ended.

    Raises:
        OSError: it could not be written.
    """
    lock = control.take_lock()
    if lock is None:
        return
    try:
        if read_outcome(control):
            return
        traces = Traces.read(control)
        if traces.group:
            cgroup.remove(traces.group)
        message = OVERDUE if control.overdue.exists() else GONE
        word = {
            "protocol": PROTOCOL,
            "reason": "unkillable" if survived else "lost",
            "message": f"{UNKILLABLE}. {message}" if survived else message,
            "started_at": traces.started.get("started_at", 0),
            "ended_at": now,
            "log": _seal_log(read_launched(control)),
        }
        write_json(control.exit, word)
    finally:
        os.close(lock)


def _seal_log(launched: Launched) -> dict[str, Any]:
    if launched.log_dir is None:
        return {}
    try:
        with contextlib.closing(LogWriter(launched.log_dir, launched.log_bytes)) as log:
            log.seal()
            return log.totals()._asdict()
    except Exception as error:
        if isinstance(error, OSError) and error.errno in PASSING:
            raise
        # Something else is in the place of the log. That must not keep the job from its end.
        logger.warning("the log in %s can't be sealed: %r", launched.log_dir, error)
        return {}
