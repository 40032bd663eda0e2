"""How much may be under way at a time, and that nothing new begins while the server shuts down."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeAlias

from jobledger_server.api.interceptors.access import current_principal
from jobledger_server.api.interceptors.base import Wrapping
from jobledger_server.api.interceptors.watches import Watches
from jobledger_server.api.types import Context, Stream, Unary
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal, is_open

MOST_CALLS = 4096
ADMIN_CALLS = 256
ADMIN_TOKEN_CALLS = 64
TOKEN_CALLS = 512
RETRY_SECONDS = 5.0
# Whose it is, and whether it is of those that are kept for administrators.
Place: TypeAlias = tuple[str, bool]


class Limits(Wrapping):
    """Counts the calls under way, streams among them: all, and those of each token. It stands within `Access`.

    A wait holds its place for minutes. So one token has a share alone, and some places are kept for administrators:
    however many tokens wait, one who can revoke them comes through. Of those, too, one token has a share alone.

    Args:
        most_calls: at a time.
        admin_calls: of them, those that are kept for tokens with the scope `admin` that are bound to no workspaces.
        admin_token_calls: of these, those of one token.
        token_calls: of one token, and those that it was rotated to.
        watches: of health, which needs no token.
    """

    def __init__(
        self,
        *,
        most_calls: int = MOST_CALLS,
        admin_calls: int = ADMIN_CALLS,
        admin_token_calls: int = ADMIN_TOKEN_CALLS,
        token_calls: int = TOKEN_CALLS,
        watches: Watches | None = None,
    ) -> None:
        super().__init__()
        self._most = most_calls
        self._most_of_others = most_calls - admin_calls
        self._most_kept_of_token = admin_token_calls
        self._most_of_token = token_calls
        self._of_token: dict[str, int] = {}
        self._kept_of_token: dict[str, int] = {}
        self.under_way = 0
        self.watches = Watches() if watches is None else watches
        self._closing = False

    def close(self) -> None:
        """From now on new calls are refused; those under way go on."""
        self._closing = True

    def _enter(self, principal: Principal) -> Place:
        """Takes a place."""
        if self._closing:
            raise ServiceError(Reason.ERROR_REASON_ENGINE_SHUTTING_DOWN, retry_after=2)
        line = principal.line
        mine = self._of_token.get(line, 0)
        if mine >= self._most_of_token:
            told = f"This token has {mine} calls under way, which is the most: let some end"
            raise ServiceError(Reason.ERROR_REASON_RATE_LIMITED, told, retry_after=RETRY_SECONDS)
        is_kept = self.under_way >= self._most_of_others
        if is_kept:
            self._take_kept(principal)
        self._of_token[line] = mine + 1
        self.under_way += 1
        return line, is_kept

    def _take_kept(self, principal: Principal) -> None:
        """Takes one of the places kept for administrators. Who is bound to workspaces can administer nothing."""
        kept = self._kept_of_token.get(principal.line, 0)
        is_one = "admin" in principal.scopes and principal.workspaces is None
        if not is_one or self.under_way >= self._most or kept >= self._most_kept_of_token:
            raise ServiceError(Reason.ERROR_REASON_OVERLOADED, retry_after=1)
        self._kept_of_token[principal.line] = kept + 1

    def _leave(self, place: Place) -> None:
        line, is_kept = place
        self.under_way -= 1
        _count_down(self._of_token, line)
        if is_kept:
            _count_down(self._kept_of_token, line)

    def unary(self, method: str, call: Unary) -> Unary:
        if is_open(method):
            # Over at once: it needs no place, and so nobody can take those of all who ask whether the server is ready.
            return call

        async def counted(request: Any, context: Context) -> Any:
            place = self._enter(current_principal())
            try:
                return await call(request, context)
            finally:
                self._leave(place)

        return counted

    def stream(self, method: str, call: Stream) -> Stream:
        if is_open(method):
            return self.watches.stream(call)

        async def counted(request: Any, context: Context) -> AsyncIterator[Any]:
            place = self._enter(current_principal())
            try:
                async with aclosing(call(request, context)) as responses:  # type: ignore[type-var]
                    async for response in responses:
                        yield response
            finally:
                self._leave(place)

        return counted


def _count_down(counts: dict[str, int], line: str) -> None:
    left = counts[line] - 1
    if left:
        counts[line] = left
    else:
        del counts[line]
