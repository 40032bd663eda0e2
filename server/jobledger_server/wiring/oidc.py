"""Opens what takes the tokens of an OpenID Connect issuer."""

from contextlib import AsyncExitStack

from jobledger_server.access.issuer_keys import IssuerKeys
from jobledger_server.access.oidc import JwtAuthenticator
from jobledger_server.access.oidc_settings import OidcSettings
from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.core.ports import Clock
from jobledger_server.outbound import fetch
from jobledger_server.service.tasks import Tasks


def open_oidc(
    stack: AsyncExitStack, settings: OidcSettings | None, *, clock: Clock, throttle: FailureThrottle
) -> JwtAuthenticator | None:
    """Begins to fetch the issuer's keys, which no start waits for; None without an issuer."""
    if settings is None:
        return None
    keys = IssuerKeys(settings=settings, fetch=fetch, clock=clock)
    tasks = Tasks()
    stack.push_async_callback(tasks.stop)
    tasks.start(keys.run(), "keys of the issuer")
    return JwtAuthenticator(settings=settings, keys=keys, clock=clock, throttle=throttle)
