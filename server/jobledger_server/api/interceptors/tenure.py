"""Streams and waits end when the token does that opened them; and one token has so many streams and no more."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from jobledger_server.access.live_calls import LiveCall, LiveCalls
from jobledger_server.api.interceptors.access import current_principal
from jobledger_server.api.interceptors.base import Wrapping
from jobledger_server.api.types import Context, Metadata, Stream, Unary
from jobledger_server.core.policy import is_open

# With one response, that may come late. What changes something always finishes (`core.changes`); what of such a call
# only waits, as a cancel may for the end, is kept by who does it.
WAITS = frozenset({"/jobledger.v1.JobService/WaitJob"})


class Tenure(Wrapping):
    """Keeps the calls of each token that last, so that they can be ended."""

    def __init__(self, *, live: LiveCalls) -> None:
        super().__init__()
        self._live = live

    def unary(self, method: str, call: Unary) -> Unary:
        if method not in WAITS:
            return call

        async def held(request: Any, context: Context) -> Any:
            with self._live.open(current_principal(), is_stream=False):
                return await call(request, context)

        return held

    def stream(self, method: str, call: Stream) -> Stream:
        if is_open(method):
            return call

        async def held(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._live.open(current_principal(), is_stream=True) as live:
                accepting: Any = Accepting(context, live)
                async with aclosing(call(request, accepting)) as responses:  # type: ignore[type-var]
                    async for response in responses:
                        live.leave()
                        yield response
                        live.come_back()

        return held


class Accepting:
    """The context of a call that hears of its end once its initial metadata has gone, not in the midst of that.

    Where grpc.aio is cancelled half-way it knows nothing of what it has sent, and fails to send the status.
    """

    def __init__(self, context: Context, live: LiveCall) -> None:
        self._context = context
        self._live = live

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        self._live.leave()
        await self._context.send_initial_metadata(initial_metadata)
        self._live.come_back()
