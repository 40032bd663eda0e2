"""The queue, and what a restart must look after."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobledger.v1.job_pb2 import JobPriority
from jobledger_server.core.ports import JobRecord, Store
from jobledger_server.core.times import micros
from support.records import NOW, QUEUED, RUNNING, STATES, TERMINAL, a_change, a_record

LOW, NORMAL, HIGH = (
    JobPriority.JOB_PRIORITY_LOW,
    JobPriority.JOB_PRIORITY_NORMAL,
    JobPriority.JOB_PRIORITY_HIGH,
)


LABEL, ODD = "label tenant=a", ('label "]\u00e9,=\u0001',)
GROUPS = ("queue gpu", LABEL, "label b=2", *ODD, "queue without jobs")


def turn(record: JobRecord) -> tuple[int, int, str]:
    return -(record.job.spec.priority or NORMAL), micros(record.job.queued_at), record.job.job_id


jobs = st.builds(
    a_record,
    st.sampled_from([QUEUED, QUEUED, RUNNING, *TERMINAL]),
    queued_at=st.integers(NOW, NOW + 2),
    priority=st.sampled_from([JobPriority.JOB_PRIORITY_UNSPECIFIED, LOW, NORMAL, HIGH]),
    eligible_at=st.sampled_from([0, NOW, NOW + 5]),
    concurrency_groups=st.sampled_from([(), (), ("queue gpu",), ("queue gpu", LABEL), (LABEL, "label b=2"), ODD]),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(jobs, max_size=12), limit=st.integers(1, 8))
async def test_the_queue_goes_by_priority_then_age_then_id(store: Store, records: list[JobRecord], limit: int) -> None:
    for record in records:
        await store.create_job(record, [])
    waiting = sorted((record for record in records if record.job.state == QUEUED), key=turn)
    eligible = [record.job for record in waiting if record.eligible_at <= NOW + 1]
    assert [record.job for record in await store.queued_jobs(now=NOW + 1, limit=limit)] == eligible[:limit]
    positions = [await store.queue_position(record.job.job_id) for record in waiting]
    assert positions == list(range(1, len(waiting) + 1))
    for record in records:
        await store.delete_job(record.job.job_id)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(jobs, max_size=12), limit=st.integers(1, 8), full=st.sets(st.sampled_from(GROUPS)))
async def test_jobs_of_full_groups_are_left_out_and_the_others_keep_their_order(
    store: Store, records: list[JobRecord], limit: int, full: set[str]
) -> None:
    for record in records:
        await store.create_job(record, [])
    waiting = sorted((record for record in records if record.job.state == QUEUED), key=turn)
    expected = [
        record.job for record in waiting if record.eligible_at <= NOW + 1 and full.isdisjoint(record.concurrency_groups)
    ]
    found = await store.queued_jobs(now=NOW + 1, limit=limit, full=full)
    assert [record.job for record in found] == expected[:limit]
    for record in records:
        await store.delete_job(record.job.job_id)


async def test_a_job_keeps_its_groups_when_it_is_queued_again(store: Store) -> None:
    record = await store.create_job(a_record(concurrency_groups=("queue gpu", LABEL)), [])
    await store.update_job(record.job.job_id, lambda stored: a_change(stored, RUNNING))
    await store.update_job(record.job.job_id, lambda stored: a_change(stored, QUEUED))
    (queued,) = await store.queued_jobs(now=NOW, limit=10)
    assert queued.concurrency_groups == ("queue gpu", LABEL)
    assert await store.queued_jobs(now=NOW, limit=10, full=[LABEL]) == []


async def test_the_groups_of_jobs_can_be_set_anew(store: Store) -> None:
    first, second = [await store.create_job(a_record(concurrency_groups=("queue gpu",)), []) for _ in range(2)]
    await store.set_concurrency_groups({first.job.job_id: (LABEL,), "job_unknown": ("queue gpu",)})
    assert [record.job for record in await store.queued_jobs(now=NOW, limit=10, full=["queue gpu"])] == [first.job]
    assert [record.job for record in await store.queued_jobs(now=NOW, limit=10, full=[LABEL])] == [second.job]
    await store.set_concurrency_groups({first.job.job_id: (), second.job.job_id: ()})
    assert len(await store.queued_jobs(now=NOW, limit=10, full=["queue gpu", LABEL])) == 2


async def test_a_job_is_eligible_from_its_instant_on(store: Store) -> None:
    await store.create_job(a_record(eligible_at=NOW + 5), [])
    assert await store.queued_jobs(now=NOW + 4, limit=10) == []
    assert len(await store.queued_jobs(now=NOW + 5, limit=10)) == 1


async def test_a_job_that_is_not_queued_has_no_position(store: Store) -> None:
    for state in STATES[1:]:
        record = await store.create_job(a_record(state), [])
        assert await store.queue_position(record.job.job_id) is None
    assert await store.queue_position("job_unknown") is None


async def test_a_job_that_starts_leaves_the_queue(store: Store) -> None:
    first, second = [await store.create_job(a_record(), []) for _ in range(2)]
    await store.update_job(first.job.job_id, lambda stored: a_change(stored, RUNNING))
    assert await store.queue_position(second.job.job_id) == 1
    assert await store.queued_jobs(now=NOW, limit=10) == [second]


async def test_a_job_that_is_queued_again_waits_behind_older_ones(store: Store) -> None:
    first, second = [await store.create_job(a_record(), []) for _ in range(2)]
    await store.update_job(first.job.job_id, lambda stored: a_change(stored, RUNNING))
    await store.update_job(first.job.job_id, lambda stored: a_change(stored, QUEUED))
    queued = await store.queued_jobs(now=NOW, limit=10)
    assert [record.job.job_id for record in queued] == [second.job.job_id, first.job.job_id]


async def test_unfinished_jobs_come_oldest_first(store: Store) -> None:
    records = [a_record(state, created_at=NOW - age) for age, state in enumerate([*STATES, *STATES])]
    for record in records:
        await store.create_job(record, [])
    expected = [record.job for record in reversed(records) if record.job.state not in TERMINAL]
    assert [record.job for record in await store.unfinished_jobs()] == expected
