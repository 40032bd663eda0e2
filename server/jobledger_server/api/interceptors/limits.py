"""How much may be under way at a time, and that nothing new begins while the server shuts down."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from jobledger_server.api.interceptors.access import current_principal
from jobledger_server.api.interceptors.base import Wrapping
from jobledger_server.api.interceptors.watches import Watches
from jobledger_server.api.types import Context, Stream, Unary
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal, is_open

MOST_CALLS = 4096
ADMIN_CALLS = 256
TOKEN_CALLS = 512
RETRY_SECONDS = 5.0


class Limits(Wrapping):
    """Counts the calls under way, streams among them: all, and those of each token. It stands within `Access`.

    A wait holds its place for minutes. So one token has a share alone, and some places are kept for administrators:
    however many tokens wait, one who can revoke them comes through.

    Args:
        most_calls: at a time.
        admin_calls: of them, those that are kept for tokens with the scope `admin`.
        token_calls: of one token, and those that it was rotated to.
        watches: of health, which needs no token.
    """

    def __init__(
        self,
        *,
        most_calls: int = MOST_CALLS,
        admin_calls: int = ADMIN_CALLS,
        token_calls: int = TOKEN_CALLS,
        watches: Watches | None = None,
    ) -> None:
        super().__init__()
        self._most = most_calls
        self._most_of_others = most_calls - admin_calls
        self._most_of_token = token_calls
        self._of_token: dict[str, int] = {}
        self.under_way = 0
        self.watches = Watches() if watches is None else watches
        self._closing = False

    def close(self) -> None:
        """From now on new calls are refused; those under way go on."""
        self._closing = True

    def _enter(self, principal: Principal) -> str:
        """Takes a place. Returns whose it is."""
        if self._closing:
            raise ServiceError(Reason.ERROR_REASON_ENGINE_SHUTTING_DOWN, retry_after=2)
        line = principal.line
        mine = self._of_token.get(line, 0)
        if mine >= self._most_of_token:
            told = f"This token has {mine} calls under way, which is the most: let some end"
            raise ServiceError(Reason.ERROR_REASON_RATE_LIMITED, told, retry_after=RETRY_SECONDS)
        if self.under_way >= (self._most if "admin" in principal.scopes else self._most_of_others):
            raise ServiceError(Reason.ERROR_REASON_OVERLOADED, retry_after=1)
        self._of_token[line] = mine + 1
        self.under_way += 1
        return line

    def _leave(self, line: str) -> None:
        self.under_way -= 1
        left = self._of_token[line] - 1
        if left:
            self._of_token[line] = left
        else:
            del self._of_token[line]

    def unary(self, method: str, call: Unary) -> Unary:
        if is_open(method):
            # Over at once: it needs no place, and so nobody can take those of all who ask whether the server is ready.
            return call

        async def counted(request: Any, context: Context) -> Any:
            line = self._enter(current_principal())
            try:
                return await call(request, context)
            finally:
                self._leave(line)

        return counted

    def stream(self, method: str, call: Stream) -> Stream:
        if is_open(method):
            return self.watches.stream(call)

        async def counted(request: Any, context: Context) -> AsyncIterator[Any]:
            line = self._enter(current_principal())
            try:
                async with aclosing(call(request, context)) as responses:  # type: ignore[type-var]
                    async for response in responses:
                        yield response
            finally:
                self._leave(line)

        return counted
