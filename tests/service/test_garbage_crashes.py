"""A pass may end at any step: the next one leaves no garbage behind, and nothing that is needed is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobledger_server.core.ports import Kept
from jobledger_server.core.retention import retention_of
from jobledger_server.service import garbage
from jobledger_server.service.trees import remove_tree
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.garbage import Place
from support.records import an_event

EVERYTHING = retention_of((kept.value, "0s") for kept in Kept)
MOST_STEPS = 100


class CrashError(Exception):
    """The process died here."""


class Countdown:
    """Lets so many steps happen, and ends everything before or after the next."""

    def __init__(self, steps: int, *, after: bool) -> None:
        self._left = steps
        self._after = after

    def before(self) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise CrashError

    def after(self) -> None:
        if self._left == 0 and self._after:
            raise CrashError

    def step(self, do: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **fields: Any) -> Any:
            self.before()
            done = do(*args, **fields)
            self.after()
            return done

        return counted

    def awaited(self, do: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(*args: Any, **fields: Any) -> Any:
            self.before()
            done = await do(*args, **fields)
            self.after()
            return done

        return counted


async def crashed(place: Place, steps: int, *, after: bool) -> bool:
    """Makes a pass that ends at a step. False: it came to its end before."""
    countdown = Countdown(steps, after=after)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(garbage, "remove_tree", countdown.step(remove_tree))
        for name in ("forget", "delete_job", "drop_events", "drop_expired_keys"):
            patched.setattr(place.store, name, countdown.awaited(getattr(place.store, name)))
        patched.setattr(place.blobs, "delete", countdown.awaited(place.blobs.delete))
        try:
            await place.collector(EVERYTHING).collect()
        except CrashError:
            return True
    return False


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_at_any_step_leaves_nothing_behind_for_ever(tmp_path: Path, after: bool) -> None:
    steps = 1
    while await crash_and_collect(tmp_path / str(steps), steps, after=after):
        steps += 1
        assert steps < MOST_STEPS
    # Two jobs: two directories and two notes of each, or of both; the jobs; a blob; events; keys.
    assert steps > 10


async def crash_and_collect(data_dir: Path, steps: int, *, after: bool) -> bool:
    data_dir.mkdir()
    async with SqliteStore(data_dir / "jobledger.db") as store:
        place = Place(data_dir, store, ManualClock())
        job_ids = [await place.ended(sha256=await place.blob(content)) for content in (b"one", b"two")]
        await store.append_events([an_event(place.clock.now())])
        place.clock.advance(1)
        needed = await place.ended(sha256=await place.blob(b"two"))
        ended_early = not await crashed(place, steps, after=after)
        await place.collector(EVERYTHING).collect()
        assert [place.left(job_id) for job_id in job_ids] == [[], []]
        assert await store.unknown_jobs([*job_ids, needed]) == set(job_ids)
        [blobs] = [batch async for batch in place.blobs.stored() if batch]
        [artifact] = await store.artifacts(needed)
        assert [blob.sha256 for blob in blobs] == [artifact.sha256]
        assert [await store.receipt(job_id) is not None for job_id in job_ids] == [True, True]
        assert (await place.collector(EVERYTHING).collect()).count == {}
    return not ended_early
