"""Waiting for a job's end: through restarts of the server, and never for longer than was said."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import jobledger
import pytest
from jobledger import Client
from jobledger.calls import transport
from jobledger.v1.job_pb2 import Job, JobState
from jobledger.v1.job_service_pb2 import WaitJobRequest
from sdk.fake_server import TOKEN, FakeServer, Refusal

DOWN = Refusal(reason="ENGINE_STARTING", retry_after=0.001)
RUNNING, FAILED = (Job(state=state) for state in (JobState.JOB_STATE_RUNNING, JobState.JOB_STATE_FAILED))


@contextlib.asynccontextmanager
async def patient(target: str) -> AsyncIterator[Client]:
    """A client that goes on asking for a minute; fails where the test lasts for longer than a few seconds."""
    async with asyncio.timeout(10), Client.connect(target, token=TOKEN, reconnect_for=60.0) as client:
        yield client


async def test_waiting_polls_until_the_job_is_terminal(server: FakeServer, client: Client) -> None:
    server.on("WaitJob", RUNNING, DOWN, RUNNING, FAILED)
    assert (await client.wait("job_1")).state == JobState.JOB_STATE_FAILED
    assert len(server.requests["WaitJob"]) == 4


async def test_waiting_ends_when_its_time_is_over(server: FakeServer, client: Client) -> None:
    server.on("WaitJob", RUNNING)
    with pytest.raises(jobledger.DeadlineError, match=r"still running after 0\.05 s"):
        await client.wait("job_1", timeout=0.05)


async def test_waiting_ends_in_time_where_the_server_is_away() -> None:
    began = asyncio.get_running_loop().time()
    async with patient("127.0.0.1:1") as client:
        with pytest.raises(jobledger.DeadlineError, match="job_1 has ended is not known: No server") as failure:
            await client.wait("job_1", timeout=0.5)
    assert asyncio.get_running_loop().time() - began >= 0.5, "it may come back until then"
    assert failure.value.error_code == "E_DEADLINE"


@pytest.mark.parametrize("reason", ["ENGINE_SHUTTING_DOWN", "RATE_LIMITED"])
async def test_waiting_ends_in_time_where_the_server_asks_for_more(server: FakeServer, reason: str) -> None:
    server.on("WaitJob", Refusal(reason=reason, retry_after=30.0))
    async with patient(server.target) as client:
        with pytest.raises(jobledger.DeadlineError, match="as the test wants it"):
            await client.wait("job_1", timeout=0.1)
    assert len(server.requests["WaitJob"]) == 1


async def test_waiting_ends_in_time_where_nothing_is_answered(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ANSWER_SECONDS", 0.1)

    async def nothing(_: WaitJobRequest) -> None:
        await asyncio.Event().wait()

    server.on("WaitJob", nothing)
    async with patient(server.target) as client:
        with pytest.raises(jobledger.DeadlineError, match="not known: No answer"):
            await client.wait("job_1", timeout=0.1)


async def test_who_waits_for_long_is_told_that_the_server_stays_away(server: FakeServer) -> None:
    server.on("WaitJob", DOWN)
    async with Client.connect(server.target, token=TOKEN, retry_for=0.1, reconnect_for=0.2) as client:
        with pytest.raises(jobledger.UnavailableError):
            await client.wait("job_1", timeout=3600.0)


async def test_another_attempt_asks_for_the_time_that_is_left(server: FakeServer, client: Client) -> None:
    server.on("WaitJob", Refusal(reason="ENGINE_STARTING", retry_after=0.3), FAILED)
    await client.wait("job_1", timeout=20.0)
    first, second = (request.timeout.ToTimedelta().total_seconds() for request in server.requests["WaitJob"])
    assert 19.0 < first <= 20.0
    assert second <= first - 0.3
