"""The follow-ups to an attempt, as a server queues and counts them. All here blocks, and is meant for a thread."""

import threading

from jobledger_server.core.ports import InputClosedError, InputFullError
from jobledger_server.core.ports.executor import MOST_WAITING, MOST_WAITING_BYTES
from jobledger_server.executors.local.control_dir import ControlDir, Queue


class FollowUps:
    """What is queued, and what of it the process has not taken yet.

    Attributes:
        waiting: how many the process has not taken, at the last look.
    """

    def __init__(self, control: ControlDir) -> None:
        self.waiting = 0
        self._control = control
        # Two threads may come here: one that looks for news, one that queues another.
        self._lock = threading.Lock()
        self._queue: Queue | None = None
        self._taken = Queue()

    def look(self) -> None:
        """Sees what was taken."""
        with self._lock:
            self._look()

    def add(self, data: bytes, *, close: bool) -> None:
        """Queues one, durably.

        Raises:
            InputClosedError: the one before ends the input.
            InputFullError: with what waits it is too much; it is not queued.
            UnreadableError: there is something in the place of the queue.
            OSError: it can't be stored just now.
        """
        with self._lock:
            queue = self._look()
            if queue.closed:
                raise InputClosedError
            full = self.waiting >= MOST_WAITING and not close
            if full or queue.bytes_since(self._taken) + len(data) > MOST_WAITING_BYTES:
                raise InputFullError
            # Not known until it is written: what a full disk leaves of it is cut off before there is another.
            self._queue = None
            self._queue = queue.up_to(self._control.append_input(data, close=close))
            self._look()

    def _look(self) -> Queue:
        """What is queued. One that was cut short is cut off, so only with the lock held."""
        if self._queue is None:
            self._queue = self._control.repair_inputs()
        taken = self._control.acknowledged()
        if taken > self._taken.number:
            self._pass_over(min(taken, self._queue.number) - self._taken.number)
        self.waiting = max(0, self._queue.number - taken)
        return self._queue

    def _pass_over(self, count: int) -> None:
        for _, follow_up in zip(range(count), self._control.follow_ups(self._taken.end), strict=False):
            self._taken = self._taken.up_to(follow_up)
