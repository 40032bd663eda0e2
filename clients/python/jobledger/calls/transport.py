"""One channel to a server: sends the token, turns failures into exceptions, repeats what may be repeated."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message

from jobledger.errors import JobledgerError, RateLimitedError, UnavailableError, error_from

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 2.0


class Backoff:
    """Waits between attempts, each twice as long as the one before, with jitter, until a budget of time is spent.

    Args:
        budget: seconds from the first failure after which no other attempt is made.
    """

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._delay = FIRST_DELAY
        self._ends_at: float | None = None

    async def wait(self, error: JobledgerError) -> None:
        """Sleeps until another attempt may help, at least as long as the server asked for.

        Raises:
            JobledgerError: `error` itself, where no attempt will help or the budget is spent.
        """
        if not isinstance(error, UnavailableError | RateLimitedError):
            raise error
        now = asyncio.get_running_loop().time()
        self._ends_at = self._ends_at or now + self._budget
        delay = max(error.retry_after or 0.0, self._delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        if now + delay > self._ends_at:
            raise error
        self._delay = min(self._delay * 2, LONGEST_DELAY)
        await asyncio.sleep(delay)


class Transport:
    """Calls over one channel.

    Args:
        target: the server, for messages.
        token: "" where a certificate speaks for the caller.
        timeout: deadline of a unary call, seconds.
        retry_for: how long a failing call is repeated, seconds.
        reconnect_for: the same for a stream that has already delivered something.
    """

    def __init__(
        self,
        *,
        channel: grpc.aio.Channel,
        target: str,
        token: str,
        timeout: float,
        retry_for: float,
        reconnect_for: float,
    ) -> None:
        self.channel = channel
        self._target = target
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._timeout = timeout
        self._retry_for = retry_for
        self._reconnect_for = reconnect_for

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        repeatable: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 - it becomes the call's deadline
        retry_for: float | None = None,
    ) -> Response:
        """The answer to one call. A call that is not `repeatable` is made once, whatever becomes of it.

        Raises:
            JobledgerError: the kind that fits.
        """
        backoff = Backoff((self._retry_for if retry_for is None else retry_for) if repeatable else 0.0)
        while True:
            try:
                return await method(request, metadata=self._metadata, timeout=timeout or self._timeout)
            except grpc.aio.AioRpcError as failure:
                await backoff.wait(error_from(failure, self._target))

    async def wait_call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, *, seconds: float
    ) -> Response:
        """The answer to a call that the server may hold back for `seconds`; lives through a restart of the server."""
        return await self.call(
            method, request, timeout=seconds + self._timeout, retry_for=max(self._retry_for, self._reconnect_for)
        )

    async def follow(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        advance: Callable[[Request, Response], None],
        *,
        endless: bool = False,
    ) -> AsyncGenerator[Response, None]:
        """Items of a server stream. When the connection breaks, the stream is opened anew where it left off.

        Args:
            advance: changes the request so that it asks for what comes after an item.
            endless: the stream has no end of its own: where the server ends it, it is opened anew as well.

        Raises:
            JobledgerError: the kind that fits.
        """
        backoff = Backoff(self._retry_for)
        while True:
            call = method(request, metadata=self._metadata)
            try:
                async for item in call:
                    advance(request, item)
                    backoff = Backoff(self._reconnect_for)
                    yield item
                if not endless:
                    return
                failure: JobledgerError = UnavailableError(
                    f"The server at {self._target} has ended the stream: it shuts down",
                    error_code="E_ENGINE_SHUTTING_DOWN",
                )
            except grpc.aio.AioRpcError as broken:
                failure = error_from(broken, self._target)
            finally:
                call.cancel()
            await backoff.wait(failure)
