"""Changes that go on to their end, whether whoever asked for them waits for it or not.

A caller that leaves, or whose time is over, has its call cancelled wherever that just is: after a job was marked as to
be cancelled, say, and before its processes were told.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from jobledger_server.core.errors import ServiceError

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)
# For a lock that another holds while the disk is full, say.
PATIENCE_SECONDS = 5.0
# The loop alone does not keep a task.
_under_way: set[asyncio.Task[Any]] = set()


def completed(change: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Has a change run in a task of its own, which its caller waits for, and does not take along when it is cancelled.

    Only for what is over soon: a server that stops waits for it a while.
    """

    @wraps(change)
    async def complete(*args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.get_running_loop().create_task(change(*args, **kwargs))
        _under_way.add(task)
        task.add_done_callback(_under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_tell_failure)
            raise

    return complete


async def settled(patience: float = PATIENCE_SECONDS) -> None:
    """Waits for those of this loop that are under way; after so many seconds they are broken off, as by a crash."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + patience
    while (mine := [task for task in _under_way if task.get_loop() is loop]) and loop.time() < ends_at:
        await asyncio.wait(mine, timeout=ends_at - loop.time())
    if mine:
        log.warning("changes that are broken off, since what they wait for has not come: %d", len(mine))
        for task in mine:
            task.cancel()
        await asyncio.wait(mine)


def _tell_failure(task: asyncio.Task[Any]) -> None:
    """A refusal was for a caller who does not want to know any more."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, ServiceError):
        log.error("a change failed whose caller had left", exc_info=error)
