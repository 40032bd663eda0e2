"""Who calls, and whether they may. Nothing passes without a rule; only health needs no token."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

import grpc

from jobledger_server.access.tokens import Authenticator
from jobledger_server.api.interceptors.base import Guard
from jobledger_server.api.types import Context, Handler
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal, is_open, require, scopes_by_method

_principal: ContextVar[Principal] = ContextVar("principal")


def current_principal() -> Principal:
    """Who makes the call that runs now."""
    return _principal.get()


class Access(Guard):
    """Authenticates the caller, and holds the method's rule against the scopes of the token."""

    def __init__(self, *, authenticator: Authenticator) -> None:
        super().__init__()
        self._authenticator = authenticator
        self._scopes = scopes_by_method()
        self._refusal: Handler = grpc.unary_unary_rpc_method_handler(_refuse)

    async def enter(self, method: str, request: Any, context: Context) -> None:
        if is_open(method):
            return
        principal = await self._authenticator.authenticate(_credentials(context), _peer(context))
        scope = self._scopes.get(method)
        if scope is None:
            raise ServiceError(Reason.ERROR_REASON_UNIMPLEMENTED)
        require(principal, scope)
        _principal.set(principal)

    def unknown(self) -> Handler:
        """A method that nobody knows: the caller learns that only with a valid token."""
        return self._refusal


async def _refuse(request: Any, context: Context) -> None:
    raise ServiceError(Reason.ERROR_REASON_UNIMPLEMENTED)


def _credentials(context: Context) -> Sequence[str | bytes]:
    return [value for key, value in context.invocation_metadata() or () if key == "authorization"]


def _peer(context: Context) -> str:
    """The caller's address without its port, so that each new connection is not a new peer."""
    peer: str = context.peer()
    if not peer.startswith(("ipv4:", "ipv6:")):
        return peer
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
