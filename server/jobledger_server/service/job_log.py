"""The log of a job as calls see it: damage is told in the API's words, and to the operator in the server's log."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.ports import StoredReceipt
from jobledger_server.joblog.promises import LostLogError, Promise
from jobledger_server.joblog.reader import LogPage, LogQuery, LogReader
from jobledger_server.joblog.resuming import lost_numbers
from jobledger_server.joblog.segments import DamagedLogError

log = logging.getLogger(__name__)


def promise_of(stored: StoredReceipt | None) -> Promise | None:
    """What a receipt says of its job's log; None without a receipt."""
    said = json.loads(stored.receipt)["log"] if stored else {}
    return Promise(said["entries"], said.get("sha256", "")) if said.get("entries") else None


class LogLostError(ServiceError):
    """Nothing is left of a log that has entries: it was removed meanwhile, or else it is damaged."""


class JobLog(LogReader):
    """A reader whose calls raise ServiceError (LOG_DAMAGED) for what is damaged. Synchronous: meant for a thread."""

    def __init__(self, log_dir: Path, job_number: int, promise: Promise | None = None) -> None:
        super().__init__(log_dir, job_number, promise)
        self._dir, self._entries = log_dir, promise.entries if promise else 0

    def page(self, query: LogQuery, abandoned: Callable[[], bool] = lambda: False) -> LogPage:
        """See `LogReader.page`."""
        with self._telling():
            return super().page(query, abandoned)

    def look(self, query: LogQuery, *, is_final: bool) -> tuple[LogPage, int | None]:
        """See `LogReader.look`."""
        with self._telling():
            return super().look(query, is_final=is_final)

    def content_size(self) -> int:
        """See `LogReader.content_size`."""
        with self._telling():
            return super().content_size()

    def dropped_content(self) -> int:
        """See `LogReader.dropped_content`."""
        with self._telling():
            return super().dropped_content()

    def read_content(self, offset: int, length: int) -> bytes:
        """See `LogReader.read_content`."""
        with self._telling():
            return super().read_content(offset, length)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except LostLogError as error:
            known = {"first_sequence": "1", "last_sequence": str(self._entries)}
            raise LogLostError(Reason.ERROR_REASON_LOG_DAMAGED, metadata=known) from error
        except DamagedLogError as error:
            log.error("A log is damaged: %s", error)  # noqa: TRY400 - it is no fault of ours
            first, last = lost_numbers(self._dir, error.segment) if error.segment else (0, 0)
            known = {"first_sequence": str(first), "last_sequence": str(last)} if 0 < first <= last else {}
            raise ServiceError(Reason.ERROR_REASON_LOG_DAMAGED, metadata=known) from error
