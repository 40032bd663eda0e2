"""One channel to a server: sends the token, turns failures into exceptions, repeats what may be repeated."""

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Callable
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message

from jobledger.endpoint import Endpoint
from jobledger.errors import DeadlineError, JobledgerError, RateLimitedError, UnavailableError, error_from

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 2.0
# What may be repeated.
PASSING: Final = (UnavailableError, RateLimitedError)
# How long an answer that is due at a certain time may take on its way.
ANSWER_SECONDS: Final = 5.0


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
        if not isinstance(error, PASSING):
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
        endpoint: the server, and the token; none is sent where a certificate speaks for the caller.
        timeout: deadline of a unary call, seconds.
        retry_for: how long a failing call is repeated, seconds.
        reconnect_for: the same for a stream that has already delivered something.
    """

    def __init__(
        self,
        *,
        channel: grpc.aio.Channel,
        endpoint: Endpoint,
        timeout: float,
        retry_for: float,
        reconnect_for: float,
    ) -> None:
        self.channel = channel
        self.endpoint = endpoint
        self._target = endpoint.target
        self._metadata = (("authorization", f"Bearer {endpoint.token}"),) if endpoint.token else ()
        self._timeout = timeout
        self._retry_for = retry_for
        self._reconnect_for = reconnect_for

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        repeatable: bool = True,
    ) -> Response:
        """The answer to one call. A call that is not `repeatable` is made once, whatever becomes of it.

        Raises:
            JobledgerError: the kind that fits.
        """
        backoff = Backoff(self._retry_for if repeatable else 0.0)
        while True:
            try:
                return await method(request, metadata=self._metadata, timeout=self._timeout)
            except grpc.aio.AioRpcError as failure:
                await backoff.wait(error_from(failure, self._target))

    async def wait_call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request_for: Callable[[float], Request],
        *,
        longest: float,
        ends_at: float | None,
    ) -> Response:
        """The answer to a call that the server may hold back; lives through a restart of the server.

        Args:
            request_for: the request, by the seconds for which the answer may be held back; asked for each attempt.
            longest: the most of these.
            ends_at: when the answer is due, by the clock of the loop; then there is no other attempt.

        Raises:
            DeadlineError: there was none in time; says what became of the last attempt.
            JobledgerError: another kind that fits.
        """
        clock = asyncio.get_running_loop().time
        backoff = Backoff(max(self._retry_for, self._reconnect_for))
        while True:
            left = math.inf if ends_at is None else max(0.0, ends_at - clock())
            held = min(left, longest)
            timeout = min(held + self._timeout, left + ANSWER_SECONDS)
            try:
                return await method(request_for(held), metadata=self._metadata, timeout=timeout)
            except grpc.aio.AioRpcError as failure:
                error = error_from(failure, self._target)
            try:
                async with asyncio.timeout_at(ends_at):
                    await backoff.wait(error)
            except TimeoutError:
                raise DeadlineError(error.message, error_code="E_DEADLINE") from error

    async def follow(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        advance: Callable[[Request, Response], None],
        *,
        endless: bool = False,
        is_whole: Callable[[Request], bool] = lambda _: False,
    ) -> AsyncGenerator[Response, None]:
        """Items of a server stream. When the connection breaks, the stream is opened anew where it left off.

        Args:
            advance: changes the request so that it asks for what comes after an item.
            endless: the stream has no end of its own: where the server ends it, it is opened anew as well.
            is_whole: whether a request that was moved on asks for nothing any more. Then it is not made.

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
                if isinstance(failure, PASSING) and is_whole(request):
                    return
            finally:
                call.cancel()
            await backoff.wait(failure)
