"""Nobody's calls take the places of others: those of one token, of all but administrators, of those without a token."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from api.conftest import Guards
from api.doors import Channel, Servicer, opened
from api.test_doors import detail, failure, get, watch
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.engine_service_pb2 import CreateTokenRequest
from jobledger_server.access.admin import TokenAdmin
from jobledger_server.api.interceptors.limits import Limits
from jobledger_server.api.interceptors.watches import Watches
from jobledger_server.api.types import Metadata
from support.eventually import eventually

pytestmark = pytest.mark.timeout(60)
MOST, RESERVED, OF_ONE, KEPT_FOR_ONE = 8, 2, 4, 1


@pytest.fixture
def limits() -> Limits:
    return Limits(
        most_calls=MOST,
        admin_calls=RESERVED,
        admin_token_calls=KEPT_FOR_ONE,
        token_calls=OF_ONE,
        watches=Watches(most=3, of_peer=2),
    )


@pytest.fixture(params=["socket", "inprocess"])
async def channel(
    request: pytest.FixtureRequest, servicer: Servicer, guards: Guards, limits: Limits
) -> AsyncIterator[Channel]:
    async with opened(request.param, servicer, [guards.errors, guards.access, limits]) as channel:
        yield channel


async def a_reader(admin: TokenAdmin, **fields: Any) -> Metadata:
    issued = await admin.create(CreateTokenRequest(**{"name": "reader", "scopes": ["jobs:read"], **fields}))
    return (("authorization", f"Bearer {issued.token}"),)


async def held(limits: Limits, number: int) -> None:
    async def under_way() -> int:
        return limits.under_way

    await eventually(under_way, until=lambda count: count == number)


async def refused(call: Any) -> str:
    error = await failure(call)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail(error, RetryInfo).retry_delay.seconds > 0
    return str(detail(error, ErrorInfo).reason)


def waits(stub: Any, token: Metadata, count: int) -> list[asyncio.Future[Any]]:
    return [asyncio.ensure_future(stub.WaitJob(pb.WaitJobRequest(job_id="x"), metadata=token)) for _ in range(count)]


async def test_waits_of_one_token_are_bounded_and_others_are_not_affected(
    stub: Any, servicer: Servicer, limits: Limits, admin: TokenAdmin, reader: Metadata
) -> None:
    pending = waits(stub, reader, OF_ONE)
    await held(limits, OF_ONE)
    assert await refused(stub.WaitJob(pb.WaitJobRequest(job_id="x"), metadata=reader)) == "RATE_LIMITED"
    assert await refused(get(stub, "job", reader)) == "RATE_LIMITED"
    assert await refused(watch(stub, "count", reader, 1)) == "RATE_LIMITED"
    assert (await get(stub, "job", await a_reader(admin))).job_id == "job"
    servicer.released.set()
    await asyncio.gather(*pending)
    await held(limits, 0)
    assert (await get(stub, "job", reader)).job_id == "job"


async def test_however_many_tokens_wait_an_administrator_comes_through(
    stub: Any, servicer: Servicer, limits: Limits, admin: TokenAdmin, token: Metadata
) -> None:
    pending = waits(stub, await a_reader(admin), 4) + waits(stub, await a_reader(admin), 2)
    await held(limits, MOST - RESERVED)
    assert await refused(get(stub, "job", await a_reader(admin))) == "OVERLOADED"
    bound = await a_reader(admin, scopes=["admin"], workspaces=["red"])
    assert await refused(get(stub, "job", bound)) == "OVERLOADED", "it can administer nothing"
    assert (await get(stub, "job", token)).job_id == "job"
    pending += waits(stub, token, KEPT_FOR_ONE)
    await held(limits, MOST - RESERVED + KEPT_FOR_ONE)
    assert await refused(get(stub, "job", token)) == "OVERLOADED"
    another = await a_reader(admin, scopes=["admin"])
    assert (await get(stub, "job", another)).job_id == "job"
    pending += waits(stub, another, KEPT_FOR_ONE)
    await held(limits, MOST)
    assert await refused(get(stub, "job", await a_reader(admin, scopes=["admin"]))) == "OVERLOADED"
    servicer.released.set()
    await asyncio.gather(*pending)
    await held(limits, 0)
    assert not limits._of_token
    assert not limits._kept_of_token


async def test_those_who_watch_health_take_no_place_of_those_who_ask_for_it(channel: Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest()
    watching = [health.Watch(request) for _ in range(2)]
    for call in watching:
        await anext(aiter(call))
    assert await refused(health.Watch(request)) == "OVERLOADED"
    for _ in range(5):
        assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
    watching.pop().cancel()

    async def again() -> bool:
        call = health.Watch(request)
        try:
            await anext(aiter(call))
        except grpc.aio.AioRpcError:
            return False
        watching.append(call)
        return True

    await eventually(again)
    for call in watching:
        call.cancel()


async def test_a_watch_ends_when_it_is_old(servicer: Servicer, guards: Guards) -> None:
    limits = Limits(watches=Watches(seconds=0.05))
    async with opened("socket", servicer, [guards.errors, guards.access, limits]) as channel:
        call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        error = await failure(call)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert limits.watches.under_way == 0


async def test_all_watches_together_are_bounded_whoever_they_are_of(guards: Guards) -> None:
    watches = Watches(most=3, of_peer=2)
    for peer in ("ipv4:127.0.0.1:1", "ipv4:127.0.0.1:1", "ipv4:127.0.0.1:2"):
        watches.enter(peer)
    with pytest.raises(Exception, match="watch"):
        watches.enter("ipv4:127.0.0.1:3")
    watches.leave("ipv4:127.0.0.1:1")
    watches.enter("ipv4:127.0.0.1:3")
    for peer in ("ipv4:127.0.0.1:1", "ipv4:127.0.0.1:2", "ipv4:127.0.0.1:3"):
        watches.leave(peer)
    assert watches.under_way == 0
    assert watches._of_peer == {}
