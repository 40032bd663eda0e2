"""What is there of a log whose writer has left no word of it.

Where nothing isolates a job it can write there, too. Whatever it has put in the place of its log, that must not keep it
from its end.
"""

import contextlib
import logging
from pathlib import Path

from jobledger_server.core.ports import LogSummary
from jobledger_server.joblog.segments import segment_files
from jobledger_server.joblog.writer import LogWriter, log_totals

# The log is to lose nothing by being looked at, whatever its cap was.
NO_CAP = 1 << 62

logger = logging.getLogger(__name__)


def kept_log(log_dir: Path, *, final: bool) -> LogSummary:
    """Entries, hash, warnings and errors; nothing where there are no files of a log. Reads all of it: a thread's work.

    Args:
        final: nobody writes to it any more: it is repaired and sealed, if that can be.
    """
    if not segment_files(log_dir):
        return LogSummary()
    try:
        if final:
            with contextlib.closing(LogWriter(log_dir, NO_CAP)) as log:
                log.seal()
                return LogSummary(**log.totals()._asdict())
    except Exception as error:  # noqa: BLE001 - see above
        logger.warning("the log in %s can't be sealed: %r", log_dir, error)
    try:
        return LogSummary(**log_totals(log_dir)._asdict())
    except Exception as error:  # noqa: BLE001 - see above
        logger.warning("the log in %s can't be read: %r", log_dir, error)
        return LogSummary()
