"""Outermost: whatever is raised leaves as a status of the registry, and tells nothing of the inside."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
from grpc_status import rpc_status

from jobledger_server.api.interceptors.base import Wrapping
from jobledger_server.api.status import to_status
from jobledger_server.api.types import Context, Stream, Unary
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.ports import StoreUnavailableError

log = logging.getLogger(__name__)


class Errors(Wrapping):
    """Turns exceptions into statuses. What is not meant for clients is logged under a reference that they are given."""

    def unary(self, method: str, call: Unary) -> Unary:
        async def caught(request: Any, context: Context) -> Any:
            try:
                return await call(request, context)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception as error:  # noqa: BLE001 - the last line of defence
                await _abort(context, method, error)

        return caught

    def stream(self, method: str, call: Stream) -> Stream:
        async def caught(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async with aclosing(call(request, context)) as responses:  # type: ignore[type-var]
                    async for response in responses:
                        yield response
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception as error:  # noqa: BLE001 - the last line of defence
                await _abort(context, method, error)

        return caught


async def _abort(context: Context, method: str, error: Exception) -> NoReturn:
    await context.abort_with_status(rpc_status.to_status(to_status(_public(method, error))))


def _public(method: str, error: Exception) -> ServiceError:
    """What a client may know of an exception."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, StoreUnavailableError):
        log.error("%s: the store can't write: %s", method, error)
        return ServiceError(Reason.ERROR_REASON_ENGINE_SAFE_MODE, retry_after=5)
    reference = secrets.token_hex(6)
    log.error("%s failed, reference %s", method, reference, exc_info=error)
    return ServiceError(
        Reason.ERROR_REASON_INTERNAL,
        f"The server met a fault of its own; its log has it under the reference {reference}",
        metadata={"reference": reference},
    )
