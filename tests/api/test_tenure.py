"""What a token has open ends with it, at every door; and it has so many streams open and no more."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from api.doors import DOORS, Servicer, opened
from api.test_doors import detail, failure, watch
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.engine_service_pb2 import CreateTokenRequest, IssuedToken
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.access.admin import TokenAdmin
from jobledger_server.access.cached_tokens import CachedTokens
from jobledger_server.access.live_calls import LiveCalls
from jobledger_server.access.rates import RequestRates
from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.access.tokens import Authenticator
from jobledger_server.api.interceptors.access import Access
from jobledger_server.api.interceptors.errors import Errors
from jobledger_server.api.interceptors.tenure import Accepting, Tenure
from jobledger_server.api.types import Metadata
from jobledger_server.core.errors import ServiceError
from jobledger_server.core.policy import Principal
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.eventually import eventually

pytestmark = pytest.mark.timeout(60)
MOST = 3


class Guarded:
    """The interceptors that know of tokens, around a servicer."""

    def __init__(self, store: SqliteStore) -> None:
        self.clock = ManualClock()
        self.servicer = Servicer()  # type: ignore[abstract]  # the other methods are left unimplemented on purpose
        self.tokens = CachedTokens(store)
        self.admin = TokenAdmin(tokens=self.tokens, clock=self.clock)
        self.live = LiveCalls(tokens=self.tokens, clock=self.clock, most_streams=MOST)
        self.tokens.on_change(self.live.token_changed)
        authenticator = Authenticator(tokens=self.tokens, clock=self.clock, throttle=FailureThrottle(clock=self.clock))
        rates = RequestRates(clock=self.clock, rate=10, burst=20)
        self.interceptors = [Errors(), Access(authenticator=authenticator, rates=rates), Tenure(live=self.live)]

    async def token(self, **fields: Any) -> IssuedToken:
        return await self.admin.create(CreateTokenRequest(name="ci", scopes=["jobs:read", "jobs:cancel"], **fields))


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with SqliteStore(tmp_path / "jobledger.db") as store:
        yield Guarded(store)


@pytest.fixture(params=DOORS)
async def stub(request: pytest.FixtureRequest, guarded: Guarded) -> AsyncIterator[Any]:
    async with opened(request.param, guarded.servicer, guarded.interceptors) as channel:
        yield JobServiceStub(channel)


def bearer(issued: IssuedToken) -> Metadata:
    return (("authorization", f"Bearer {issued.token}"),)


async def begun(guarded: Guarded) -> None:
    async with asyncio.timeout(30):
        await guarded.servicer.begun.wait()


async def ended(call: Any) -> tuple[grpc.StatusCode, str]:
    async with asyncio.timeout(30):
        error = await failure(call)
    return error.code(), str(detail(error, ErrorInfo).reason)


async def test_revoking_a_token_ends_its_streams_at_once_and_no_others(stub: Any, guarded: Guarded) -> None:
    issued, other = await guarded.token(), await guarded.token()
    theirs = watch(stub, "silent", bearer(other))
    await theirs.initial_metadata()
    call = watch(stub, "silent", bearer(issued))
    await call.initial_metadata()
    await guarded.admin.revoke(issued.info.token_id)
    assert await ended(call) == (grpc.StatusCode.UNAUTHENTICATED, "AUTH_INVALID")
    await guarded.live.sweep()
    assert not theirs.done()
    theirs.cancel()


async def test_a_stream_that_is_being_accepted_is_told_of_its_end_afterwards(guarded: Guarded) -> None:
    """Cancelled within, grpc.aio could send no status any more: its client would wait for ever."""
    issued = await guarded.token()
    sending, sent = asyncio.Event(), asyncio.Event()

    async def send(metadata: Metadata) -> None:
        sending.set()
        await sent.wait()

    async def accepted() -> None:
        with guarded.live.open(Principal(token_id=issued.info.token_id, scopes=frozenset()), is_stream=True) as live:
            context: Any = SimpleNamespace(send_initial_metadata=send)
            await Accepting(context, live).send_initial_metadata(())

    call = asyncio.create_task(accepted())
    await sending.wait()
    await guarded.admin.revoke(issued.info.token_id)
    assert not call.cancelling()
    sent.set()
    with pytest.raises(ServiceError, match="revoked"):
        await call


async def test_a_wait_ends_with_its_token_and_what_changes_something_finishes(stub: Any, guarded: Guarded) -> None:
    issued = await guarded.token()
    wait = asyncio.ensure_future(ended(stub.WaitJob(pb.WaitJobRequest(job_id="x"), metadata=bearer(issued))))
    await begun(guarded)
    guarded.servicer.begun.clear()
    cancel = stub.CancelJob(pb.CancelJobRequest(job_id="x"), metadata=bearer(issued))
    waiting = asyncio.ensure_future(_response(cancel))
    await begun(guarded)
    await guarded.admin.revoke(issued.info.token_id)
    assert await wait == (grpc.StatusCode.UNAUTHENTICATED, "AUTH_INVALID")
    guarded.servicer.released.set()
    assert (await waiting).job_id == "x"


async def _response(call: Any) -> Any:
    return await call


async def test_a_stream_ends_with_the_sweep_after_its_token_has_expired(stub: Any, guarded: Guarded) -> None:
    issued = await guarded.token(expires_in=Duration(seconds=60))
    call = watch(stub, "silent", bearer(issued))
    await call.initial_metadata()
    guarded.clock.advance(59)
    await guarded.live.sweep()
    assert not call.done()
    guarded.clock.advance(1)
    await guarded.live.sweep()
    assert await ended(call) == (grpc.StatusCode.UNAUTHENTICATED, "AUTH_TOKEN_EXPIRED")


async def test_a_stream_outlives_the_rotation_of_its_token_by_a_minute(stub: Any, guarded: Guarded) -> None:
    issued = await guarded.token()
    call = watch(stub, "silent", bearer(issued))
    await call.initial_metadata()
    await guarded.admin.rotate(issued.info.token_id)
    await guarded.live.sweep()
    assert not call.done()
    guarded.clock.advance(60)
    await guarded.live.sweep()
    assert await ended(call) == (grpc.StatusCode.UNAUTHENTICATED, "AUTH_TOKEN_EXPIRED")


async def test_a_token_that_was_changed_behind_the_cache_is_found_by_the_sweep(
    stub: Any, guarded: Guarded, tmp_path: Path
) -> None:
    """As by another server on the same store. This one may have the token in memory: it is asked for by nobody else."""
    issued = await guarded.token()
    call = watch(stub, "silent", bearer(issued))
    await call.initial_metadata()
    async with SqliteStore(tmp_path / "jobledger.db") as elsewhere:
        await TokenAdmin(tokens=elsewhere, clock=guarded.clock).revoke(issued.info.token_id)
    guarded.tokens._known.clear()
    await guarded.live.sweep()
    assert await ended(call) == (grpc.StatusCode.UNAUTHENTICATED, "AUTH_INVALID")


async def test_a_stream_whose_reader_takes_nothing_is_cut_off_by_the_next_sweep(stub: Any, guarded: Guarded) -> None:
    """The servicer waits for the reader, outside of what can be told. Two sweeps are 20 s."""
    issued = await guarded.token()
    call = watch(stub, "large", bearer(issued), 100_000)
    await call.initial_metadata()

    async def produced() -> int:
        return guarded.servicer.produced

    async def stopped() -> bool:
        before = await produced()
        for _ in range(50):
            await asyncio.sleep(0)
        return 0 < before == await produced()

    await eventually(stopped)
    await guarded.admin.revoke(issued.info.token_id)
    await guarded.live.sweep()
    await eventually(_value(guarded.servicer.ended), until=lambda names: "large" in names)
    assert guarded.live._calls == {}
    call.cancel()


def _value(names: list[str]) -> Any:
    async def value() -> list[str]:
        return names

    return value


async def test_one_token_has_so_many_streams_and_others_are_not_affected(stub: Any, guarded: Guarded) -> None:
    issued, other = await guarded.token(), await guarded.token()
    calls = [watch(stub, "silent", bearer(issued)) for _ in range(MOST)]
    for call in calls:
        await call.initial_metadata()
    error = await failure(watch(stub, "silent", bearer(issued)))
    assert (error.code(), detail(error, ErrorInfo).reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert detail(error, RetryInfo).retry_delay.seconds > 0
    theirs = watch(stub, "silent", bearer(other))
    await theirs.initial_metadata()
    calls.pop().cancel()

    async def again() -> bool:
        call = watch(stub, "count", bearer(issued), 1)
        try:
            return [event.sequence_number async for event in call] == [1]
        except grpc.aio.AioRpcError:
            return False

    await eventually(again)
    for call in (*calls, theirs):
        call.cancel()
    await eventually(_value([]), until=lambda _: not guarded.live._calls and not guarded.live._streams)


async def test_a_token_that_asks_too_fast_is_told_when_to_come_back(stub: Any, guarded: Guarded) -> None:
    issued, other = await guarded.token(), await guarded.token()
    for _ in range(20):
        await stub.GetJob(pb.GetJobRequest(job_id="x"), metadata=bearer(issued))
    error = await failure(stub.GetJob(pb.GetJobRequest(job_id="x"), metadata=bearer(issued)))
    assert (error.code(), detail(error, ErrorInfo).reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert detail(error, RetryInfo).retry_delay.seconds == 1
    await stub.GetJob(pb.GetJobRequest(job_id="x"), metadata=bearer(other))
    guarded.clock.advance(0.1)
    await stub.GetJob(pb.GetJobRequest(job_id="x"), metadata=bearer(issued))
    assert await ended(stub.GetJob(pb.GetJobRequest(job_id="x"), metadata=bearer(issued)))
