"""The blocking client does what the asynchronous one does."""

import asyncio

import jobledger
import pytest
from jobledger import SyncClient
from jobledger.v1.job_pb2 import Job, JobState, LogEntry
from jobledger.v1.job_service_pb2 import TailEnd, TailLogsResponse
from sdk.fake_server import TOKEN, FakeServer, Refusal


def _use(target: str) -> tuple[str, list[int], str]:
    with SyncClient.connect(target, token=TOKEN, retry_for=1.0) as client:
        job = client.submit(["true"], labels={"a": "b"})
        lines = [entry.job_sequence for entry in client.tail_logs(job.job_id)]
        with pytest.raises(jobledger.NotFoundError) as failure:
            client.get("job_2")
        return job.job_id, lines, failure.value.error_code


async def test_calls_iterators_and_errors_work_without_asyncio(server: FakeServer) -> None:
    server.on("CreateJob", Job(job_id="job_1"))
    end = TailLogsResponse(end=TailEnd(state=JobState.JOB_STATE_COMPLETED))
    server.on("TailLogs", [TailLogsResponse(log=LogEntry(job_sequence=n)) for n in (1, 2)] + [end])
    server.on("GetJob", Refusal(reason="JOB_NOT_FOUND"))
    assert await asyncio.to_thread(_use, server.target) == ("job_1", [1, 2], "E_JOB_NOT_FOUND")


def _take_one(target: str) -> int:
    with SyncClient.connect(target, token=TOKEN) as client:
        for entry in client.tail_logs("job_1"):
            return entry.job_sequence
    raise AssertionError("nothing came")


async def test_an_iterator_may_be_left_early(server: FakeServer) -> None:
    server.on("TailLogs", [TailLogsResponse(log=LogEntry(job_sequence=n)) for n in range(1, 100)])
    assert await asyncio.to_thread(_take_one, server.target) == 1


def test_the_event_loop_of_the_caller_stays_what_it_is() -> None:
    mine = asyncio.new_event_loop()
    asyncio.set_event_loop(mine)
    try:
        with SyncClient.connect("127.0.0.1:1", token=TOKEN):
            assert asyncio.get_event_loop() is mine
        assert asyncio.get_event_loop() is mine
    finally:
        asyncio.set_event_loop(None)
        mine.close()


async def test_a_blocking_client_may_be_used_where_a_loop_runs() -> None:
    """As one does in a notebook."""
    with SyncClient.connect("127.0.0.1:1", token=TOKEN, retry_for=0.0) as client:
        thread = client.thread
        with pytest.raises(jobledger.UnavailableError):
            client.status()
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run_coroutine_threadsafe(nothing := asyncio.sleep(0), thread._loop)
    nothing.close()


def test_a_connection_that_is_refused_leaves_no_thread_behind() -> None:
    with pytest.raises(jobledger.SetupError, match="TLS"), SyncClient.connect("10.0.0.1:1", token=TOKEN):
        pass
