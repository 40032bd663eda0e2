"""Whoever replays events while they are dropped is told, and never waits for what is gone."""

import asyncio
from contextlib import aclosing

import pytest
from jobledger.v1.job_service_pb2 import WatchEventsRequest
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal
from jobledger_server.service.events import BATCH, EventHub
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.records import an_event

ANYBODY = Principal(token_id="token", scopes=frozenset({"jobs:read"}))
LAST = 2 * BATCH


async def replay_while_dropping(store: SqliteStore, clock: ManualClock, through: int) -> ServiceError:
    """How a replay ends under which events are dropped after its first burst."""
    await store.append_events([an_event()] * LAST)
    hub = EventHub(store=store, clock=clock)
    async with asyncio.timeout(10), aclosing(await hub.watch(WatchEventsRequest(resume_from=0), ANYBODY)) as stream:
        assert len(await anext(stream)) == BATCH
        await store.drop_events(through)
        with pytest.raises(ServiceError) as told:
            await anext(stream)
    return told.value


@pytest.mark.parametrize("through", [BATCH + 1, LAST - 1, LAST])
async def test_a_replay_that_is_overtaken_is_told_the_first_that_is_kept(
    store: SqliteStore, clock: ManualClock, through: int
) -> None:
    told = await replay_while_dropping(store, clock, through)
    assert told.reason == Reason.ERROR_REASON_STREAM_GAP_TOO_LARGE
    assert told.metadata == {"first_available_sequence": str(through + 1)}


async def test_dropping_what_a_replay_has_seen_does_not_disturb_it(store: SqliteStore, clock: ManualClock) -> None:
    await store.append_events([an_event()] * LAST)
    hub = EventHub(store=store, clock=clock)
    async with asyncio.timeout(10), aclosing(await hub.watch(WatchEventsRequest(resume_from=0), ANYBODY)) as stream:
        first = await anext(stream)
        await store.drop_events(BATCH)
        assert [event.sequence_number for event in [*first, *await anext(stream)]] == list(range(1, LAST + 1))
        [end] = await anext(stream)
        assert end.replay_complete.replayed_count == LAST
