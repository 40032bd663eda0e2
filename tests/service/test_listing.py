"""Lists are kept as long as nothing changes, and not an instant longer; kept or not, they are the same."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobledger.v1.job_pb2 import Job
from jobledger.v1.job_service_pb2 import ListJobsRequest, ListJobsResponse, ListLiveJobsRequest
from jobledger_gateway.encoding import encode_json
from jobledger_server.core.errors import ServiceError
from jobledger_server.core.pages import PageTokens
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import JobChange, JobFilter, JobRecord, SerializedJobs
from jobledger_server.core.times import timestamp
from jobledger_server.service.current_answers import OVERHEAD, Answer, CurrentAnswers
from jobledger_server.service.early_input import EarlyInput, keep_early_input
from jobledger_server.service.jobs import Jobs
from jobledger_server.service.list_forms import MOST_BYTES_KEPT, json_form, summary, wire_form
from jobledger_server.service.listing import Listing
from jobledger_server.service.locks import JobLocks
from jobledger_server.service.signals import JobSignals
from jobledger_server.service.workspace import Workspaces
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.executors import ScriptedExecutor
from support.lists import POPULATION
from support.records import NOW, QUEUED, RUNNING, a_record

READER = Principal(token_id="reader", scopes=frozenset({"jobs:read"}))
WIRE, JSON = wire_form(), json_form(encode_json)
WRITES, WRITERS, READERS = 25, 4, 4


class CountingStore(SqliteStore):
    """Counts how often a page was read."""

    pages = 0

    async def list_serialized(
        self, where: JobFilter, *, limit: int, offset: int = 0, after: tuple[int, str] | None = None
    ) -> SerializedJobs:
        self.pages += 1
        return await super().list_serialized(where, limit=limit, offset=offset, after=after)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CountingStore]:
    async with CountingStore(tmp_path / "jobledger.db") as store:
        yield store


@pytest.fixture
def listing(store: CountingStore, tmp_path: Path) -> Listing:
    return Listing(
        store=store,
        executor=ScriptedExecutor(clock=ManualClock()),
        workspaces=Workspaces(data_dir=tmp_path),
        pages=PageTokens(b"0123456789abcdef"),
    )


async def listed(listing: Listing, principal: Principal = READER, **request: object) -> ListJobsResponse:
    answer = await listing.list(ListJobsRequest(**request), principal, WIRE)  # type: ignore[arg-type]
    return ListJobsResponse.FromString(answer.body)


async def progress(listing: Listing, job_id: str) -> float | None:
    """How far a job is, as the list shows it; None where it isn't there."""
    found = [job for job in (await listed(listing)).jobs if job.job_id == job_id]
    return found[0].progress_percent if found else None


def further(record: JobRecord) -> JobChange:
    job = Job()
    job.CopyFrom(record.job)
    job.progress_percent += 1
    return JobChange(record=replace(record, job=job))


async def test_after_any_acknowledged_write_the_next_list_shows_it(store: CountingStore, listing: Listing) -> None:
    """Whoever writes reads what they wrote, while others fill the memory with answers as fast as they can."""
    lists = 0

    async def write() -> None:
        record = await store.create_job(a_record(RUNNING), [])
        job_id = record.job.job_id
        assert await progress(listing, job_id) == 0
        for number in range(1, WRITES):
            await store.update_job(job_id, further)
            assert await progress(listing, job_id) == number
        await store.delete_job(job_id)
        assert await progress(listing, job_id) is None

    async def read() -> None:
        nonlocal lists
        while True:
            await listed(listing)
            lists += 1
            await asyncio.sleep(0)

    readers = [asyncio.create_task(read()) for _ in range(READERS)]
    await asyncio.gather(*(write() for _ in range(WRITERS)))
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    assert store.pages < lists, "no answer was ever given twice: the test shows nothing"


async def test_what_a_job_has_shown_of_itself_a_later_list_shows_too(store: CountingStore, listing: Listing) -> None:
    """A change is seen before its writer hears of it: from then on no list is from before it."""
    job_id = (await store.create_job(a_record(RUNNING), [])).job.job_id

    async def look(*, until: float) -> None:
        while True:
            record = await store.get_job(job_id)
            seen = await progress(listing, job_id)
            assert record is not None
            assert seen is not None
            assert seen >= record.job.progress_percent
            if seen >= until:
                return

    async def write() -> None:
        for _ in range(WRITES * 4):
            await store.update_job(job_id, further)

    await asyncio.gather(write(), *(look(until=WRITES * 4) for _ in range(READERS)))


async def test_while_a_change_becomes_visible_no_answer_is_kept(
    store: CountingStore, listing: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell whether what is read then is from before it or from after."""
    await store.create_job(a_record(), [])
    monkeypatch.setattr(store._writer, "revision", None)
    assert [(await listed(listing)).total for _ in range(2)] == [1, 1]
    assert store.pages == 2


async def test_what_changes_no_job_drops_no_answer(store: CountingStore, listing: Listing) -> None:
    await store.create_job(a_record(), [])
    before = await listing.list(ListJobsRequest(), READER, JSON)
    await store.note_token_use("token", NOW)
    await store.reserve_artifact_ids(3)
    assert await listing.list(ListJobsRequest(), READER, JSON) is before


async def test_a_page_goes_on_with_the_token_that_the_callers_was_rotated_to(
    store: CountingStore, listing: Listing
) -> None:
    for _ in range(2):
        await store.create_job(a_record(), [])
    page_token = (await listed(listing, limit=1)).next_page_token
    rotated = replace(READER, token_id="new", first_id=READER.token_id)
    assert len((await listed(listing, rotated, limit=1, page_token=page_token)).jobs) == 1
    with pytest.raises(ServiceError, match="page_token"):
        await listed(listing, replace(READER, token_id="stranger"), limit=1, page_token=page_token)


async def test_answers_are_apart_for_each_caller_view_filter_page_and_form(
    store: CountingStore, listing: Listing
) -> None:
    for workspace in ("blue", "green", "green"):
        await store.create_job(a_record(workspace_id=workspace), [])
    bound = replace(READER, workspaces=frozenset({"blue"}))
    for _ in range(2):  # the second time from memory
        assert [(await listed(listing, who)).total for who in (READER, bound)] == [3, 1]
        assert (await listed(listing, workspace_id="green")).total == 2
        pages = [await listed(listing, limit=1, offset=offset) for offset in range(3)]
        assert len({page.jobs[0].job_id for page in pages}) == 3
        tokens = {
            (await listed(listing, who, limit=1)).next_page_token for who in (READER, replace(READER, token_id="x"))
        }
        assert len(tokens) == 2
        assert orjson.loads((await listing.list(ListJobsRequest(), READER, JSON)).body)["total"] == 3
    assert store.pages == 9


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    jobs=st.lists(st.sampled_from(POPULATION), max_size=8),
    total=st.integers(0, 2**40),
    token=st.none() | st.sampled_from(("", "[]", "token")),
    seed=st.integers(0, 2**16),
)
def test_a_page_put_together_is_the_page_coded_in_one(
    jobs: list[JobRecord], total: int, token: str | None, seed: int
) -> None:
    """Fields come and go at random; names are such as JSON must escape."""
    chance, rest = random.Random(seed), ListJobsResponse(total=total, limit=50, next_page_token=token)
    shown = [_varied(record.job, chance) for record in jobs]
    whole = ListJobsResponse(jobs=[summary(job) for job in shown])
    whole.MergeFrom(rest)
    stored = [job.SerializeToString(deterministic=True) for job in shown]
    for _ in range(2):
        assert JSON.page(stored, rest) == encode_json(whole)
        assert ListJobsResponse.FromString(WIRE.page(stored, rest)) == whole


def _varied(job: Job, chance: random.Random) -> Job:
    varied = Job()
    varied.CopyFrom(job)
    if chance.random() < 0.5:
        varied.progress_percent = chance.choice((0, 12.5, 100))
        varied.progress_phase = chance.choice(("", '"quoted" \\ \u2028', "é" * MOST_BYTES_KEPT))
    if chance.random() < 0.5:
        varied.error_code = "E_JOB_EXIT_NONZERO"
        varied.completed_at.CopyFrom(timestamp(NOW + chance.randrange(10**9)))
    return varied


def test_answers_take_no_more_room_than_they_may() -> None:
    small, large = Answer(b"x"), Answer(b"x" * OVERHEAD)
    answers = CurrentAnswers(most_bytes=2 * OVERHEAD + 2)
    answers.put("large", 1, Answer(b"x" * 3 * OVERHEAD))
    answers.put("one", 1, small)
    answers.put("one", 1, small)
    answers.put("two", 1, small)
    assert [answers.get(key, 1) for key in ("large", "one", "two")] == [None, small, small]
    answers.put("three", 1, large)
    assert [answers.get(key, 1) for key in ("one", "two", "three")] == [None, None, large]


def test_an_answer_that_was_read_long_ago_does_not_take_the_place_of_newer_ones() -> None:
    answers, late, new = CurrentAnswers(), Answer(b"late"), Answer(b"new")
    answers.put("key", 2, new)
    answers.put("key", 1, late)
    answers.put("key", None, late)
    assert [answers.get("key", revision) for revision in (2, 1, None)] == [new, None, None]


async def test_what_waits_for_the_start_of_jobs_is_counted_aside_and_one_that_can_not_be_read_costs_no_list(
    store: CountingStore, listing: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: dict[str, int] = {}
    for number, content in enumerate(["", "not JSON", "[]", '{"texts": 1}', None]):
        record = a_record(QUEUED)
        record.job.spec.stdin = "open"
        record = await store.create_job(record, [])
        counts[record.job.job_id] = 0 if content is not None else number
        log_dir = tmp_path / "logs" / record.job.job_id
        for text in "word" if content is None else ():
            keep_early_input(log_dir, text, close=False)
        if content is not None:
            log_dir.mkdir(parents=True)
            (log_dir / "early_input.json").write_text(content)
    threads: set[int] = set()
    read = Workspaces.early_input

    def noted(self: Workspaces, job: Job) -> EarlyInput:
        threads.add(threading.get_ident())
        return read(self, job)

    monkeypatch.setattr(Workspaces, "early_input", noted)
    live = await listing.list_live(ListLiveJobsRequest(), READER)
    assert {job.job_id: job.queued_followups for job in live.jobs} == counts
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    # And each by itself.
    jobs = Jobs(
        store=store,
        clock=ManualClock(),
        executor=ScriptedExecutor(clock=ManualClock()),
        workspaces=Workspaces(data_dir=tmp_path),
        signals=JobSignals(),
        locks=JobLocks(),
        deletions=Mock(),
        storage=Mock(),
    )
    assert {job_id: (await jobs.get(job_id, READER)).queued_followups for job_id in counts} == counts
