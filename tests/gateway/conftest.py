from collections.abc import AsyncIterator

import aiohttp
import pytest
from gateway.client import Client
from gateway.engine import Engine, connected
from gateway.foreign import Recorder, vectors_service
from jobledger_gateway.app import GatewayOptions, build_app, serve
from jobledger_gateway.streaming import StreamSettings


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(vectors_service())


@pytest.fixture
def options() -> GatewayOptions:
    return GatewayOptions(
        allowed_hosts=("127.0.0.1", "localhost"),
        allowed_origins=("https://ops.example.org",),
        streams=StreamSettings(ping_seconds=0.05, write_seconds=0.5),
    )


@pytest.fixture(params=["socket", "in process"])
async def client(engine: Engine, options: GatewayOptions, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """A client of a gateway over either kind of channel: whatever holds, holds for both."""
    async with (
        connected(engine, request.param) as channel,
        serve(build_app(channel, options=options), host="127.0.0.1", port=0, drain_seconds=2) as address,
        aiohttp.ClientSession() as session,
    ):
        yield Client(session, address.host, address.port)
