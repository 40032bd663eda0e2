"""What takes the tokens of an issuer, on a clock that the test sets."""

from dataclasses import replace
from typing import Any

import pytest
from jobledger.v1.errors_pb2 import ErrorReason
from jobledger_server.access.issuer_keys import IssuerKeys
from jobledger_server.access.oidc import JwtAuthenticator
from jobledger_server.access.oidc_settings import OidcSettings
from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.core.errors import ServiceError
from jobledger_server.core.policy import Principal
from jobledger_server.core.times import SECOND
from jobledger_server.outbound import fetch
from jobledger_server.service.tasks import Tasks
from support.clock import ManualClock
from support.issuer import AUDIENCE, Issuer

PEER = "ipv4:127.0.0.1"
RULES = (("admins", ("admin",)), ("readers", ("jobs:read",)), ("runners", ("jobs:create", "jobs:exec")))


class Bench:
    """An authenticator for an issuer, on a clock that the test sets."""

    def __init__(self, issuer: Issuer, clock: ManualClock, tasks: Tasks, **settings: Any) -> None:
        self.issuer, self.clock = issuer, clock
        given = OidcSettings(issuer=issuer.url, audiences=(AUDIENCE,), scope_map=RULES, scope_claim="groups")
        given = replace(given, **settings)
        self.keys = IssuerKeys(settings=given, fetch=fetch, clock=clock)
        tasks.start(self.keys.run(), "keys")
        throttle = FailureThrottle(clock=clock, limit=10_000)
        self.jwts = JwtAuthenticator(settings=given, keys=self.keys, clock=clock, throttle=throttle)

    @property
    def now(self) -> int:
        return self.clock.now() // SECOND

    def claims(self, **other: Any) -> dict[str, Any]:
        return self.issuer.claims(self.now, **other)

    async def principal(self, algorithm: str = "RS256", **claims: Any) -> Principal:
        return await self.take(self.issuer.sign(self.claims(**claims), algorithm))

    async def take(self, token: str) -> Principal:
        return await self.jwts.authenticate(token.encode(), PEER)

    async def refused(self, token: str) -> ErrorReason.ValueType:
        with pytest.raises(ServiceError) as caught:
            await self.take(token)
        assert token not in str(caught.value)
        return caught.value.reason
