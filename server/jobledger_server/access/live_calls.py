"""The calls that outlast an answer - streams, and waits -, by the token that opened them: they end when it does."""

import asyncio
import logging
from types import TracebackType
from typing import Self

from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import Clock, StoreUnavailableError, TokenRecord, TokenStore

log = logging.getLogger(__name__)
RETRY_SECONDS = 5.0


class LiveCall:
    """One call, made in the task that runs it. A context manager: it is live for the time of the block.

    What runs within the block can be cancelled at any time. What the task does elsewhere between two responses, such as
    to hand one to its reader, is not: there the call is told when it comes back.
    """

    __slots__ = ("_calls", "_elsewhere", "_ended", "_task", "expires_at", "is_stream", "line", "token_id")

    def __init__(self, calls: "LiveCalls", principal: Principal, *, is_stream: bool) -> None:
        self.token_id = principal.token_id
        self.line = principal.line
        self.expires_at = principal.expires_at
        self.is_stream = is_stream
        self._calls = calls
        self._task = asyncio.current_task()
        self._elsewhere = False
        self._ended: ServiceError | None = None

    def leave(self) -> None:
        """A response is about to go elsewhere."""
        self._elsewhere = True

    def come_back(self) -> None:
        """It has gone.

        Raises:
            ServiceError: the token has ended meanwhile.
        """
        self._elsewhere = False
        if self._ended is not None:
            raise self._ended

    def end(self, error: ServiceError) -> None:
        """Has the call fail with this error."""
        if self._ended is None:
            self._ended = error
            if not self._elsewhere:
                self._cancel()

    def cut_off(self) -> None:
        """Cancels a call that was ended and has not come back since."""
        if self._ended is not None and self._elsewhere:
            self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> Self:
        self._calls.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.discard(self)
        cancelled = isinstance(error, asyncio.CancelledError)
        if cancelled and self._ended is not None and self._task is not None and not self._task.uncancel():
            raise self._ended from None


class LiveCalls:
    """All of them, and how many streams each token has.

    Calls of a token that is revoked in this process end at once (`token_changed`), others by the next `sweep`. One
    whose reader takes nothing meanwhile can't be told, and is cut off by the sweep after that.

    Args:
        most_streams: that one token may have open at a time.
    """

    def __init__(self, *, tokens: TokenStore, clock: Clock, most_streams: int) -> None:
        self._tokens = tokens
        self._clock = clock
        self._most_streams = most_streams
        self._calls: dict[str, set[LiveCall]] = {}
        self._streams: dict[str, int] = {}

    def open(self, principal: Principal, *, is_stream: bool) -> LiveCall:
        """A call of the task that runs now.

        Raises:
            ServiceError: RATE_LIMITED, where the token has as many streams as it may have.
        """
        if is_stream and self._streams.get(principal.line, 0) >= self._most_streams:
            raise ServiceError(
                Reason.ERROR_REASON_RATE_LIMITED,
                f"This token has {self._most_streams} streams open, which is the most: close some",
                retry_after=RETRY_SECONDS,
            )
        return LiveCall(self, principal, is_stream=is_stream)

    def add(self, call: LiveCall) -> None:
        """From now on it is live."""
        self._calls.setdefault(call.token_id, set()).add(call)
        if call.is_stream:
            self._streams[call.line] = self._streams.get(call.line, 0) + 1

    def discard(self, call: LiveCall) -> None:
        """It is over."""
        calls = self._calls[call.token_id]
        calls.discard(call)
        if not calls:
            del self._calls[call.token_id]
        if call.is_stream:
            self._streams[call.line] -= 1
            if not self._streams[call.line]:
                del self._streams[call.line]

    def token_changed(self, token: TokenRecord) -> None:
        """Ends what a revoked or expired token has open; what another end of it changes is seen to when it is due."""
        now = self._clock.now()
        for call in tuple(self._calls.get(token.token_id, ())):
            call.expires_at = token.expires_at
            if token.revoked_at and token.revoked_at <= now:
                call.end(ServiceError(Reason.ERROR_REASON_AUTH_INVALID, "The token was revoked"))
            else:
                _end_if_expired(call, now)

    async def sweep(self) -> None:
        """Ends the calls of tokens that have ended, and cuts off those that were told before and went on elsewhere."""
        now = self._clock.now()
        for token_id in tuple(self._calls):
            for call in tuple(self._calls.get(token_id, ())):
                call.cut_off()
                _end_if_expired(call, now)
            try:
                token = await self._tokens.token(token_id)
            except StoreUnavailableError as error:
                log.warning("whether token %s is still valid can't be told just now: %s", token_id, error)
                continue
            if token is not None:
                self.token_changed(token)


def _end_if_expired(call: LiveCall, now: int) -> None:
    if call.expires_at and call.expires_at <= now:
        call.end(ServiceError(Reason.ERROR_REASON_AUTH_TOKEN_EXPIRED))
