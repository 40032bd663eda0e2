"""Who calls, and whether they may. Nothing passes without a rule; only health needs no token."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import grpc

from jobledger_server.access.certificates import ClientCertificates
from jobledger_server.access.rates import RequestRates
from jobledger_server.access.tokens import Authenticator
from jobledger_server.api.interceptors.base import Wrapping
from jobledger_server.api.types import Context, Handler, Stream, Unary
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal, is_open, require, scopes_by_method

_principal: ContextVar[Principal | None] = ContextVar("principal", default=None)


def current_principal() -> Principal:
    """Who makes the call that runs now."""
    principal = _principal.get()
    if principal is None:
        raise LookupError("this call is nobody's: it has not passed `Access`")
    return principal


def known_principal() -> Principal | None:
    """Who makes the call that runs now, as far as that is known: also where it is refused for what it asks."""
    return _principal.get()


def forget_principal() -> None:
    """Nobody is known yet. A task may make several calls."""
    _principal.set(None)


class Access(Wrapping):
    """Authenticates the caller, and holds the method's rule against what it may do.

    A token decides where one is sent, good or not; a client's certificate where none is.
    """

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        certificates: ClientCertificates | None = None,
        rates: RequestRates | None = None,
    ) -> None:
        super().__init__()
        self._rates = rates
        self._authenticator = authenticator
        self._certificates = certificates
        self._scopes = scopes_by_method()
        self._refusal: Handler = grpc.unary_unary_rpc_method_handler(_refuse)

    def unary(self, method: str, call: Unary) -> Unary:
        if is_open(method):
            return call
        scope = self._scopes.get(method)

        async def let_in(request: Any, context: Context) -> Any:
            self._admit(await self._identify(context), scope)
            return await call(request, context)

        return let_in

    def stream(self, method: str, call: Stream) -> Stream:
        if is_open(method):
            return call
        scope = self._scopes.get(method)

        async def let_in(request: Any, context: Context) -> AsyncIterator[Any]:
            self._admit(await self._identify(context), scope)
            async with aclosing(call(request, context)) as responses:  # type: ignore[type-var]
                async for response in responses:
                    yield response

        return let_in

    def _identify(self, context: Context) -> Awaitable[Principal]:
        credentials = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
        if self._certificates is not None and not credentials:
            return self._certified(self._certificates, context)
        return self._authenticator.authenticate(credentials, peer_of(context))

    async def _certified(self, certificates: ClientCertificates, context: Context) -> Principal:
        shown = [*context.auth_context().get("x509_pem_cert", ())]
        if shown:
            return certificates.principal(shown[0])
        return await self._authenticator.authenticate((), peer_of(context))

    def _admit(self, principal: Principal, scope: str | None) -> None:
        _principal.set(principal)
        if self._rates is not None:
            self._rates.take(principal.line)
        if scope is None:
            raise ServiceError(Reason.ERROR_REASON_UNIMPLEMENTED)
        require(principal, scope)

    def unknown(self) -> Handler:
        """A method that nobody knows: the caller learns that only with a valid token."""
        return self._refusal


async def _refuse(request: Any, context: Context) -> None:
    raise ServiceError(Reason.ERROR_REASON_UNIMPLEMENTED)


def peer_of(context: Context) -> str:
    """The caller's address without its port, so that each new connection is not a new peer."""
    return _host_of(context.peer())


@lru_cache(4096)
def _host_of(peer: str) -> str:
    if not peer.startswith(("ipv4:", "ipv6:")):
        return peer
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
