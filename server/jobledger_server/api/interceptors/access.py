"""Who calls, and whether they may. Nothing passes without a rule; only health needs no token."""

from collections.abc import Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import grpc

from jobledger_server.access.certificates import ClientCertificates
from jobledger_server.access.rates import RequestRates
from jobledger_server.access.tokens import Authenticator
from jobledger_server.api.interceptors.base import Guard
from jobledger_server.api.types import Context, Handler
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


class Access(Guard):
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

    async def enter(self, method: str, request: Any, context: Context) -> None:
        if is_open(method):
            return
        principal = await self._identify(context)
        _principal.set(principal)
        if self._rates is not None:
            self._rates.take(principal.line)
        scope = self._scopes.get(method)
        if scope is None:
            raise ServiceError(Reason.ERROR_REASON_UNIMPLEMENTED)
        require(principal, scope)

    async def _identify(self, context: Context) -> Principal:
        credentials = _credentials(context)
        if self._certificates is not None and not credentials:
            shown = [*context.auth_context().get("x509_pem_cert", ())]
            if shown:
                return self._certificates.principal(shown[0])
        return await self._authenticator.authenticate(credentials, peer_of(context))

    def unknown(self) -> Handler:
        """A method that nobody knows: the caller learns that only with a valid token."""
        return self._refusal


async def _refuse(request: Any, context: Context) -> None:
    raise ServiceError(Reason.ERROR_REASON_UNIMPLEMENTED)


def _credentials(context: Context) -> Sequence[str | bytes]:
    return [value for key, value in context.invocation_metadata() or () if key == "authorization"]


def peer_of(context: Context) -> str:
    """The caller's address without its port, so that each new connection is not a new peer."""
    return _host_of(context.peer())


@lru_cache(4096)
def _host_of(peer: str) -> str:
    if not peer.startswith(("ipv4:", "ipv6:")):
        return peer
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
