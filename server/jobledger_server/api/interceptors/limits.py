"""How much may be under way at a time, and that nothing new begins while the server shuts down."""

from typing import Any

from jobledger_server.api.interceptors.base import Guard
from jobledger_server.api.types import Context
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import is_open

MOST_CALLS = 4096
MOST_OPEN_CALLS = 256


class Limits(Guard):
    """Counts the calls under way, streams among them. Those that need no token have a bound of their own."""

    def __init__(self, *, most_calls: int = MOST_CALLS) -> None:
        super().__init__()
        self._most = {True: MOST_OPEN_CALLS, False: most_calls}
        self._under_way = {True: 0, False: 0}
        self._closing = False

    def close(self) -> None:
        """From now on new calls are refused; those under way go on."""
        self._closing = True

    async def enter(self, method: str, request: Any, context: Context) -> None:
        needs_no_token = is_open(method)
        if self._closing and not needs_no_token:
            raise ServiceError(Reason.ERROR_REASON_ENGINE_SHUTTING_DOWN, retry_after=2)
        if self._under_way[needs_no_token] >= self._most[needs_no_token]:
            raise ServiceError(Reason.ERROR_REASON_OVERLOADED, retry_after=1)
        self._under_way[needs_no_token] += 1

    def leave(self, method: str) -> None:
        self._under_way[is_open(method)] -= 1
