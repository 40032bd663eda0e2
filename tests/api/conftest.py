"""A servicer behind the interceptors of the server, and tokens to pass them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from api.doors import DOORS, Channel, Servicer, opened
from jobledger.v1.engine_service_pb2 import CreateTokenRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.access.admin import TokenAdmin
from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.access.tokens import Authenticator
from jobledger_server.api.interceptors.access import Access
from jobledger_server.api.interceptors.errors import Errors
from jobledger_server.api.interceptors.limits import Limits
from jobledger_server.api.interceptors.validation import Validation
from jobledger_server.api.types import Metadata
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock


@dataclass(frozen=True)
class Guards:
    """The interceptors of the server, outermost first."""

    errors: Errors
    access: Access
    limits: Limits
    validation: Validation


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[TokenAdmin]:
    async with SqliteStore(tmp_path / "jobledger.db") as store:
        yield TokenAdmin(tokens=store, clock=ManualClock())


@pytest.fixture
async def token(admin: TokenAdmin) -> Metadata:
    """Metadata of a caller who may do everything."""
    return (("authorization", f"Bearer {await admin.create_first()}"),)


@pytest.fixture
async def reader(admin: TokenAdmin) -> Metadata:
    """Metadata of a caller who may only read."""
    issued = await admin.create(CreateTokenRequest(name="reader", scopes=["jobs:read"]))
    return (("authorization", f"Bearer {issued.token}"),)


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()  # type: ignore[abstract]  # the other methods are left unimplemented on purpose


@pytest.fixture
async def guards(admin: TokenAdmin) -> Guards:
    clock = ManualClock()
    authenticator = Authenticator(tokens=admin._tokens, clock=clock, throttle=FailureThrottle(clock=clock))
    return Guards(Errors(), Access(authenticator=authenticator), Limits(most_calls=3, admin_calls=0), Validation())


@pytest.fixture(params=DOORS)
async def channel(request: pytest.FixtureRequest, servicer: Servicer, guards: Guards) -> AsyncIterator[Channel]:
    """Each door in turn: whatever holds of one holds of the other."""
    interceptors = [guards.errors, guards.access, guards.limits, guards.validation]
    async with opened(request.param, servicer, interceptors) as channel:
        yield channel


@pytest.fixture
def stub(channel: Channel) -> Any:
    return JobServiceStub(channel)
