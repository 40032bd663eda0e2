"""Events: dense numbers in commit order, and listeners that hear of each once."""

import asyncio
from collections.abc import Sequence

import pytest
from jobledger.v1.events_pb2 import Event
from jobledger_server.core.ports import EventBounds, Store
from stores.backends import Backend
from support.records import NOW, RUNNING, a_change, a_record, an_event, state_changed


def numbers(events: Sequence[Event]) -> list[int]:
    return [event.sequence_number for event in events]


async def test_an_event_is_stored_with_its_number_and_its_time(store: Store) -> None:
    await store.append_events([an_event(at=NOW + 7)])
    [event] = await store.events_after(0, limit=10)
    expected = an_event(at=NOW + 7)
    expected.sequence_number = 1
    assert event == expected


async def test_the_callers_message_is_left_alone(store: Store) -> None:
    event = an_event()
    await store.append_events([event])
    assert not event.HasField("sequence_number")


async def test_numbers_are_dense_whatever_fails_in_between(store: Store) -> None:
    async def work(place: int) -> None:
        record = a_record(job_id="job_taken") if place % 5 == 4 else a_record()
        await store.create_job(record, [state_changed(record), an_event()])

    await asyncio.gather(*(work(place) for place in range(50)), return_exceptions=True)
    assert numbers(await store.events_after(0, limit=1000)) == list(range(1, 83))  # 40 jobs, and one `job_taken`
    assert await store.event_bounds() == EventBounds(first=1, last=82)


async def test_events_after_a_number_come_in_order_up_to_the_limit(store: Store) -> None:
    await store.append_events([an_event(NOW + place) for place in range(10)])
    assert numbers(await store.events_after(3, limit=4)) == [4, 5, 6, 7]
    assert numbers(await store.events_after(8, limit=4)) == [9, 10]
    assert numbers(await store.events_after(10, limit=4)) == []


async def test_without_events_the_bounds_are_one_and_zero(store: Store) -> None:
    assert await store.event_bounds() == EventBounds(first=1, last=0)


async def test_numbers_go_on_after_reopening(backend: Backend) -> None:
    async with backend.open() as store:
        await store.append_events([an_event(), an_event()])
    async with backend.open() as store:
        assert await store.event_bounds() == EventBounds(first=1, last=2)
        await store.append_events([an_event()])
        assert numbers(await store.events_after(0, limit=10)) == [1, 2, 3]


async def test_the_events_of_a_job_stand_in_the_order_of_its_changes(store: Store) -> None:
    record = a_record()
    await store.create_job(record, [state_changed(record)])
    await store.update_job(record.job.job_id, lambda stored: a_change(stored, RUNNING))
    events = await store.events_after(0, limit=10)
    assert [event.state_changed.new_state for event in events] == [record.job.state, RUNNING]


async def test_listeners_hear_of_every_event_once_and_in_order(store: Store) -> None:
    heard: list[Event] = []
    store.on_events(heard.extend)
    records = [a_record() for _ in range(60)]
    await asyncio.gather(*(store.create_job(record, [state_changed(record)]) for record in records))
    await store.append_events([an_event()])
    assert heard == await store.events_after(0, limit=100)
    assert numbers(heard) == list(range(1, 62))


async def test_a_listener_has_heard_before_the_caller_has_its_answer(store: Store) -> None:
    heard: list[Event] = []
    store.on_events(heard.extend)
    for count in range(1, 4):
        await store.append_events([an_event()])
        assert len(heard) == count


async def test_listeners_are_called_in_the_loop_and_only_with_events(store: Store) -> None:
    loop, batches = asyncio.get_running_loop(), list[int]()

    def listen(events: Sequence[Event]) -> None:
        assert asyncio.get_running_loop() is loop
        batches.append(len(events))

    store.on_events(listen)
    await store.create_job(a_record(), [])
    await store.append_events([an_event(), an_event()])
    await store.append_events([])
    assert batches == [2]


async def test_a_listener_that_hears_of_an_event_can_read_it(store: Store) -> None:
    reads: list[asyncio.Task[Sequence[Event]]] = []
    store.on_events(lambda events: reads.append(asyncio.create_task(store.events_after(0, limit=10))))
    await store.append_events([an_event()])
    assert numbers(await reads[0]) == [1]


async def test_a_listener_that_raises_harms_neither_callers_nor_other_listeners(store: Store) -> None:
    def broken(events: Sequence[Event]) -> None:
        raise ValueError("a listener's own fault")

    heard: list[Event] = []
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    store.on_events(broken)
    store.on_events(heard.extend)
    await store.append_events([an_event()])
    assert numbers(heard) == [1]
    assert isinstance(reported[0], ValueError)


async def test_events_of_a_change_that_failed_are_not_heard_of(store: Store) -> None:
    heard: list[Event] = []
    store.on_events(heard.extend)
    first = await store.create_job(a_record(), [])
    again = a_record(job_id=first.job.job_id)
    with pytest.raises(AssertionError):
        await store.create_job(again, [state_changed(again)])
    assert heard == []
