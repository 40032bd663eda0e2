"""How much may be under way at a time, and that nothing new begins while the server shuts down."""

from typing import Any

from jobledger_server.api.interceptors.base import Guard
from jobledger_server.api.types import Context
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import is_open

MOST_CALLS = 4096


class Limits(Guard):
    """Counts the calls under way, streams among them."""

    def __init__(self, *, most_calls: int = MOST_CALLS) -> None:
        super().__init__()
        self._most_calls = most_calls
        self._under_way = 0
        self._closing = False

    def close(self) -> None:
        """From now on new calls are refused; those under way go on."""
        self._closing = True

    async def enter(self, method: str, request: Any, context: Context) -> None:
        if self._closing and not is_open(method):
            raise ServiceError(Reason.ERROR_REASON_ENGINE_SHUTTING_DOWN, retry_after=2)
        if self._under_way >= self._most_calls:
            raise ServiceError(Reason.ERROR_REASON_OVERLOADED, retry_after=1)
        self._under_way += 1

    def leave(self, method: str) -> None:
        self._under_way -= 1
