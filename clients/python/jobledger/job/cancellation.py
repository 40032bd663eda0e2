"""Whether a job is to end, and the time to end well."""

import os
import signal
from contextlib import suppress
from types import FrameType


class CancelledError(BaseException):
    """The job was cancelled. Not an Exception, so that a loop that survives faults of its items does not survive it."""


def cancelled() -> bool:
    """Whether the job was asked to end, by a cancel or by its timeout. Always False outside a job.

    The first call in the main thread takes over SIGTERM, unless the program has a handler of its own: from then on the
    signal does not end the program, which has its grace period to do so itself. What is not over then is killed. Who
    asks in other threads alone calls it once in the main thread, at the start. A process that is forked ends by the
    signal as ever, until it asks for itself.
    """
    directory = os.environ.get("JOBLEDGER_JOB_DIR")
    if not directory:
        return False
    return _terminated() or os.path.lexists(f"{directory}/cancelled")


def raise_if_cancelled() -> None:
    """Leaves the work where `cancelled()`: `finally` and `with` have the grace period for what is to be put in order.

    Raises:
        CancelledError: the job was asked to end.
    """
    if cancelled():
        raise CancelledError("the job was cancelled")


class _Note:
    """A handler that notes that its signal has come to the process that it was made in."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self.came = False

    @property
    def is_inherited(self) -> bool:
        return self._process != os.getpid()

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self.is_inherited:
            # A worker of `multiprocessing`, say, of which its parent expects that the signal ends it.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        else:
            self.came = True


def _terminated() -> bool:
    """Whether SIGTERM has come since this was first asked."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is signal.SIG_DFL or (isinstance(handler, _Note) and handler.is_inherited):
        # Other threads may not set it, and go by the file alone.
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, _Note())
        return False
    return isinstance(handler, _Note) and handler.came
