"""Garbage goes when its time has come, whatever else happens meanwhile, and what is needed stays."""

import asyncio
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger_server.core.ports import LOGS, Kept, StoreUnavailableError
from jobledger_server.core.retention import DIRECTORY_OF, retention_of
from jobledger_server.service.sweeping import Sweeper
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.eventually import eventually
from support.garbage import Place
from support.records import (
    CANCELLED,
    COMPLETED,
    FAILED,
    RUNNING,
    a_job_id,
    a_key,
    a_record,
    an_event,
)

HOUR = 3600
EVERYTHING = retention_of((kept.value, "0s") for kept in Kept)


@pytest.fixture
def place(tmp_path: Path, store: SqliteStore, clock: ManualClock) -> Place:
    return Place(tmp_path, store, clock)


async def test_a_log_goes_at_its_age_and_the_directory_at_its_own(place: Place) -> None:
    job_id = await place.ended()
    rules = ("logs.info=1h", "job_dirs.completed=2h")
    place.clock.advance(HOUR)
    assert await place.collect(*rules) == {}
    place.clock.advance(1)
    assert await place.collect(*rules) == {"logs.info": 1}
    assert place.left(job_id) == ["job_dir"]
    place.clock.advance(HOUR)
    assert await place.collect(*rules) == {"job_dirs.completed": 1}
    assert place.left(job_id) == []
    assert await place.store.get_job(job_id) is not None


async def test_a_rule_is_for_its_class_alone(place: Place) -> None:
    completed = await place.ended()
    failed = await place.ended(FAILED, [Kept.LOGS_ERROR, Kept.JOB_DIRS_FAILED])
    place.clock.advance(1)
    assert await place.collect("logs.error=0s", "job_dirs.completed=0s") == {"logs.error": 1, "job_dirs.completed": 1}
    assert (place.left(completed), place.left(failed)) == (["log"], ["job_dir"])


async def test_a_job_goes_last_and_its_receipt_stays(place: Place) -> None:
    job_id = await place.ended()
    place.clock.advance(1)
    assert await place.collect("jobs=0s", "job_dirs.completed=0s") == {"job_dirs.completed": 1}
    assert await place.store.get_job(job_id) is not None, "its log is still kept"
    assert await place.collect("jobs=0s", "logs.info=0s") == {"logs.info": 1, "jobs": 1}
    assert await place.store.get_job(job_id) is None
    assert await place.store.receipt(job_id) is not None
    assert place.deleted == [job_id], "a recovery does not bring it back"


async def test_what_runs_is_left_alone_under_any_rule(place: Place) -> None:
    record = a_record(RUNNING)
    await place.store.create_job(record, [])
    place.files(record.job.job_id)
    place.clock.advance(HOUR)
    await place.collector(EVERYTHING).collect()
    assert place.left(record.job.job_id) == ["log", "job_dir"]


async def test_a_dry_run_tells_what_goes_and_removes_nothing(place: Place) -> None:
    job_id = await place.ended()
    await place.store.append_events([an_event(place.clock.now())])
    await place.blob(b"nobody's")
    await place.store.create_job(a_record(), [], a_key(expires_at=place.clock.now() + 1))
    place.files(a_job_id())
    place.clock.advance(1)
    rules = ("events=0s", "logs.info=0s", "job_dirs.completed=0s")
    before = await place.collect(*rules, dry_run=True)
    assert before == {
        "events": 1,
        "logs.info": 1,
        "job_dirs.completed": 1,
        "leftovers": 2,
        "blobs": 1,
        "idempotency_keys": 1,
    }
    assert place.left(job_id) == ["log", "job_dir"]
    assert place.storage.collected.total() == 0
    assert await place.collect(*rules) == before
    assert await place.collect(*rules) == {}
    assert place.storage.collected == before


async def test_sizes_are_told_of_what_goes_and_of_what_stays(place: Place) -> None:
    await place.ended()
    await place.blob(b"nobody's")
    place.clock.advance(1)
    sweep = await place.collector(retention_of([("logs.info", "0s"), ("job_dirs.completed", "never")])).collect()
    assert sweep.size == {"logs.info": 100, "blobs": 8}
    assert place.storage.bytes_of == {
        "database": await place.store.size(), "job_dirs": 100, "logs": 0, "blobs": 0
    }  # fmt: skip
    assert place.storage.swept_at == place.clock.now()


async def test_a_blob_stays_while_one_job_has_it(place: Place) -> None:
    shared, alone = await place.blob(b"shared"), await place.blob(b"alone")
    first, _ = await place.ended(sha256=shared), await place.ended(sha256=shared)
    await place.store.delete_job(await place.ended(sha256=alone))
    await place.store.delete_job(first)
    assert (await place.collect())["blobs"] == 1
    assert (await place.blobs.verify(shared), await place.blobs.verify(alone)) == (True, False)


async def test_a_blob_that_is_collected_just_now_stays(place: Place) -> None:
    with place.blobs.protecting():
        sha256 = await place.blob(b"of a job whose end is being stored")
        assert await place.collect() == {}
        job_id = await place.ended(sha256=sha256)
    assert await place.collect() == {}
    assert await place.blobs.verify(sha256), job_id


async def test_what_a_crash_left_of_deleting_a_job_goes(place: Place) -> None:
    job_id = await place.ended(sha256=await place.blob(b"result"))
    await place.store.delete_job(job_id)
    assert place.left(job_id) == ["log", "job_dir"]
    assert await place.collect() == {"leftovers": 2, "blobs": 1}
    assert place.left(job_id) == []


async def test_directories_that_are_no_jobs_are_left_alone(place: Place) -> None:
    foreign = place.data_dir / "jobs" / "lost+found"
    foreign.mkdir(parents=True)
    assert await place.collect() == {}
    assert foreign.exists()


async def test_a_crash_between_files_and_note_is_made_good(place: Place) -> None:
    """The files are gone, and the store does not know yet."""
    job_id = await place.ended(kept=[Kept.LOGS_INFO])
    place.workspaces.remove(job_id)
    place.clock.advance(1)
    assert await place.collect("logs.info=0s", "jobs=0s") == {"jobs": 1}


async def test_what_can_not_be_removed_holds_up_nothing_and_is_tried_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, free = await place.ended(kept=[Kept.LOGS_INFO]), await place.ended(kept=[Kept.LOGS_INFO])
    place.clock.advance(1)

    def refuse(path: Path) -> None:
        if path.name == stuck:
            raise PermissionError(path)
        path.rename(path.with_name("gone"))

    with monkeypatch.context() as patched:
        patched.setattr("jobledger_server.service.garbage.remove_tree", refuse)
        assert await place.collect("logs.info=0s") == {"logs.info": 1}
    assert ("log" in place.left(stuck), "log" in place.left(free)) == (True, False)
    assert await place.collect("logs.info=0s") == {"logs.info": 1}


async def test_old_events_go_in_batches_and_the_rest_stays_dense(place: Place) -> None:
    await place.store.append_events([an_event(place.clock.now())] * 1203)
    place.clock.advance(HOUR)
    await place.store.append_events([an_event(place.clock.now())] * 2)
    assert await place.collect("events=30m") == {"events": 1203}
    assert [event.sequence_number for event in await place.store.events_after(0, limit=10)] == [1204, 1205]


async def test_while_the_store_can_not_write_files_still_make_room(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await place.ended()
    await place.blob(b"nobody's")
    place.clock.advance(1)

    async def full(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the disk is full")

    for write in ("forget", "drop_events", "drop_expired_keys"):
        monkeypatch.setattr(place.store, write, full)
    with pytest.raises(StoreUnavailableError):
        await place.collect("logs.info=0s")
    assert place.left(job_id) == ["job_dir"]
    assert place.storage.collected == {"logs.info": 1, "blobs": 1}


async def test_passes_that_overlap_count_nothing_twice(place: Place) -> None:
    for _ in range(70):
        await place.ended()
    await place.store.append_events([an_event(place.clock.now())] * 700)
    place.clock.advance(1)
    collector = place.collector(EVERYTHING)
    await asyncio.gather(*(collector.collect() for _ in range(3)))
    assert place.storage.collected == {"logs.info": 70, "job_dirs.completed": 70, "jobs": 70, "events": 700}


async def test_a_sweeper_makes_passes_until_it_is_closed(place: Place) -> None:
    collector = place.collector(EVERYTHING)
    async with Sweeper(garbage=collector, storage=place.storage, first=0, interval=0.001):
        for _ in range(2):
            get = partial(place.store.get_job, await place.ended())
            place.clock.advance(1)
            await eventually(get, until=lambda record: record is None)


async def test_a_pass_that_is_cancelled_is_finished_by_the_next(place: Place) -> None:
    job_ids = [await place.ended() for _ in range(120)]
    place.clock.advance(1)
    collector = place.collector(EVERYTHING)
    work = asyncio.create_task(collector.collect(rest=1e6))
    await eventually(lambda: asyncio.sleep(0, place.left(job_ids[0])), until=lambda left: "log" not in left)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert place.left(job_ids[-1]) == ["log", "job_dir"]
    await collector.collect()
    assert [place.left(job_id) for job_id in job_ids] == [[]] * 120
    assert await place.store.unknown_jobs(job_ids) == set(job_ids)


async def test_a_dry_run_tells_what_becomes_due_by_what_goes_first(place: Place) -> None:
    """The log and the directory first, then the job, then the bytes of artifacts that it alone had."""
    shared = await place.blob(b"shared")
    await place.ended(sha256=await place.blob(b"its own"))
    await place.ended(sha256=shared)
    await place.ended(FAILED, [Kept.LOGS_ERROR, Kept.JOB_DIRS_FAILED], sha256=shared)
    place.clock.advance(1)
    rules = ("logs.info=0s", "job_dirs.completed=0s", "jobs=0s")
    expected = {"logs.info": 2, "job_dirs.completed": 2, "jobs": 2, "blobs": 1}
    assert await place.collect(*rules, dry_run=True) == expected
    assert await place.collect(*rules) == expected


AGES = st.sampled_from(["0s", "1h", "2h", "never"])
ENDINGS = st.tuples(st.sampled_from([COMPLETED, FAILED, CANCELLED]), st.sampled_from(LOGS), st.integers(0, 3))
STEPS = st.lists(st.one_of(ENDINGS, st.just("hour"), st.just("delete"), st.just("event")), min_size=1, max_size=9)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, rules=st.fixed_dictionaries({kept.value: AGES for kept in Kept}), passes=st.integers(1, 2))
def test_a_dry_run_tells_the_very_same_that_a_run_would_remove(
    steps: list[Any], rules: dict[str, str], passes: int
) -> None:
    async def check() -> None:
        with tempfile.TemporaryDirectory() as directory:
            async with SqliteStore(Path(directory) / "jobledger.db") as store:
                place = Place(Path(directory), store, ManualClock())
                await live(place, steps)
                for _ in range(passes):
                    collector = place.collector(retention_of(rules.items()))
                    told = await collector.collect(dry_run=True)
                    done = await collector.collect()
                    assert (told.count, told.size) == (done.count, done.size)
                    place.clock.advance(HOUR)

    asyncio.run(check())


async def live(place: Place, steps: list[Any]) -> None:
    """Jobs end, one of four blobs each; hours pass; jobs are deleted without their files."""
    ended: list[str] = []
    for step in steps:
        match step:
            case "hour":
                place.clock.advance(HOUR)
            case "event":
                await place.store.append_events([an_event(place.clock.now())])
            case "delete":
                for job_id in ended[-1:]:
                    await place.store.delete_job(job_id)
            case (state, kept, number):
                sha256 = await place.blob(b"blob %d" % number)
                ended.append(await place.ended(state, [kept, DIRECTORY_OF[state]], sha256=sha256))
    place.clock.advance(1)
