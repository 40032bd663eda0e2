"""Methods that take a stream of requests: JSON over HTTP has no way to call them here, and says so."""

import logging
from collections.abc import Iterable

from aiohttp import web
from google.protobuf.descriptor import MethodDescriptor

from jobledger_gateway.errors import GatewayError, Problem
from jobledger_gateway.exchange import Exchange

logger = logging.getLogger(__name__)


class Unserved:
    """Refuses the requests of a method's paths, so that none of them falls to a wider rule instead."""

    def __init__(self, method: MethodDescriptor) -> None:
        message = f"{method.full_name} takes a stream of requests, which is not served over HTTP: call it by gRPC"
        self._problem = Problem(reason="UNIMPLEMENTED", status=501, message=message)

    async def answer(self, exchange: Exchange) -> web.StreamResponse:  # noqa: ARG002 - whatever was sent
        raise GatewayError(self._problem)


def warn_of(methods: Iterable[MethodDescriptor]) -> None:
    """Tells the log, once, which of the methods with a rule take a stream of requests."""
    names = list(dict.fromkeys(method.full_name for method in methods if method.client_streaming))
    if names:
        logger.warning(
            "not served over HTTP (501), since they take a stream of requests: %s; call them by gRPC", ", ".join(names)
        )
