"""The store beside a model of it in plain Python: whatever is done in whatever order, both tell the same."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_pb2 import Artifact, JobPriority, JobState
from jobledger_server.core.ports import (
    EventBounds,
    IdempotencyConflictError,
    InvariantError,
    JobChange,
    JobFilter,
    JobOrder,
    JobRecord,
    KeyedJobDeletedError,
    SerializedJobs,
    Store,
)
from jobledger_server.core.times import SECOND
from stores.backends import Backend
from stores.store_model import Model, place
from support.records import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    FAILED,
    NOW,
    QUEUED,
    RUNNING,
    STATES,
    TERMINAL,
    a_change,
    a_key,
    a_receipt,
    a_record,
    an_artifact,
    an_event,
    moved,
    state_changed,
)

T = TypeVar("T")
NEXT: dict[int, Sequence[JobState.ValueType]] = {
    QUEUED: (RUNNING, CANCELLED, FAILED),
    RUNNING: (QUEUED, CANCELLING, COMPLETED, FAILED),
    CANCELLING: (CANCELLED, COMPLETED, FAILED),
}
WORKSPACES, TYPES, TEAMS = ("default", "other"), ("command", "report"), ("ops", "research")
GROUPS = st.lists(st.sampled_from(("queue gpu", "label team=ops")), unique=True).map(sorted).map(tuple)
FILTERS = st.builds(
    JobFilter,
    states=st.lists(st.sampled_from(STATES), max_size=3).map(tuple),
    created_after=st.none() | st.integers(0, 3).map(lambda number: NOW + number * SECOND),
    created_before=st.none() | st.integers(0, 4).map(lambda number: NOW + number * SECOND),
    labels=st.sampled_from(((), (("team", "ops"),), (("team", "ops"), ("site", "here")))),
    workspace_id=st.none() | st.sampled_from(WORKSPACES),
    job_type=st.none() | st.sampled_from(TYPES),
    workspaces=st.none() | st.sampled_from(((), ("other",), WORKSPACES)),
)


@cache
def empty_store() -> "TemporaryDirectory[str]":
    """A store that was made once: making it costs more than all that is done to it here."""
    directory = TemporaryDirectory()

    async def make() -> None:
        async with Backend(name="sqlite", directory=Path(directory.name)).open():
            pass

    asyncio.run(make())
    return directory


class StoreMachine(RuleBasedStateMachine):
    """Does things to a real store and to the model."""

    ids: "Bundle[str]" = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.model, self.heard = Model(), list[Event]()
        self.runner, self.life = asyncio.Runner(), AsyncExitStack()
        self.directory = TemporaryDirectory()
        shutil.copytree(empty_store().name, self.directory.name, dirs_exist_ok=True)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        backend = Backend(name="sqlite", directory=Path(self.directory.name))
        self.store: Store = self.run(self.life.enter_async_context(backend.open()))
        self.store.on_events(self.heard.extend)
        self.at_revision: dict[int, SerializedJobs] = {}

    def teardown(self) -> None:
        self.run(self.life.aclose())
        self.runner.close()
        self.directory.cleanup()

    @rule()
    def reopen(self) -> None:
        self.run(self.life.aclose())
        self.open()

    # --- changes ---

    @rule(
        target=ids,
        second=st.integers(0, 3),
        priority=st.sampled_from(JobPriority.values()[1:]),
        workspace=st.sampled_from(WORKSPACES),
        kind=st.sampled_from(TYPES),
        labels=st.dictionaries(st.sampled_from(("team", "site")), st.sampled_from((*TEAMS, "here"))),
        eligible_at=st.sampled_from((0, NOW + SECOND)),
        groups=GROUPS,
    )
    def create(
        self,
        second: int,
        priority: JobPriority.ValueType,
        workspace: str,
        kind: str,
        labels: dict[str, str],
        eligible_at: int,
        groups: tuple[str, ...],
    ) -> str:
        record = a_record(
            created_at=NOW + second * SECOND,
            priority=priority,
            workspace_id=workspace,
            job_type=kind,
            labels=labels,
            eligible_at=eligible_at,
            concurrency_groups=groups,
        )
        stored = self.run(self.store.create_job(record, [state_changed(record)]))
        assert stored == self._created(record)
        return record.job.job_id

    @rule(target=ids, key=st.sampled_from("ab"), request=st.sampled_from((b"one", b"two")))
    def create_with_key(self, key: str, request: bytes) -> Any:
        """The key's first request makes a job; the same again finds it; another is refused."""
        record = a_record()
        known, job_id = self.model.keys.get(key, (None, ""))
        work = self.store.create_job(record, [state_changed(record)], a_key(key, request=request))
        if known is None:
            self.model.keys[key] = request, record.job.job_id
            assert self.run(work) == self._created(record)
            return record.job.job_id
        if known != request:
            with pytest.raises(IdempotencyConflictError):
                self.run(work)
        elif job_id in self.model.jobs:
            assert self.run(work) == self.model.jobs[job_id]
        else:
            with pytest.raises(KeyedJobDeletedError):
                self.run(work)
        return multiple()

    def _created(self, record: JobRecord) -> JobRecord:
        self.model.created += 1
        self.model.tell(state_changed(record))
        self.model.jobs[record.job.job_id] = stored = replace(record, number=self.model.created)
        return stored

    @rule(job_id=ids, data=st.data(), outputs=st.integers(0, 2))
    def move(self, job_id: str, data: st.DataObject, outputs: int) -> None:
        """Starts, cancels, retries or ends it; an end comes with its receipt and artifacts."""
        record = self.model.jobs.get(job_id)
        if record is None or record.job.state in TERMINAL:
            return
        state = data.draw(st.sampled_from(NEXT[record.job.state]), label="state")
        change = a_change(record, state)
        if state in TERMINAL:
            change = replace(change, receipt=a_receipt(job_id), artifacts=self._artifacts(outputs))
            self._sealed(record, change)
        self.model.jobs[job_id] = change.record
        assert self.run(self.store.update_job(job_id, lambda stored: change)) == change.record
        self.model.tell(*change.events)

    def _artifacts(self, count: int) -> list[Artifact]:
        first = self.run(self.store.reserve_artifact_ids(count)) if count else 0
        assert not count or first == self.model.given_ids + 1
        self.model.given_ids += count
        return [an_artifact(first + number, f"result-{number}") for number in range(count)]

    def _sealed(self, record: JobRecord, change: JobChange) -> None:
        assert change.receipt
        job = record.job
        index = len(self.model.receipts)
        self.model.receipts[job.job_id] = replace(change.receipt, leaf_index=index, workspace_id=job.workspace_id)
        self.model.artifacts[job.job_id] = list(change.artifacts)

    @rule(job_id=ids, percent=st.floats(0, 100))
    def progress(self, job_id: str, percent: float) -> None:
        """An event and another record, in the same state."""
        record = self.model.jobs.get(job_id)
        if record is None or record.job.state in TERMINAL:
            return
        after = moved(record, record.job.state) if record.job.state == QUEUED else replace(record)
        after.job.progress_percent = percent
        event = Event(event_type="job.progress")
        assert self.run(self.store.update_job(job_id, lambda _: JobChange(record=after, events=[event]))) == after
        self.model.jobs[job_id] = after
        self.model.tell(event)

    @rule(job_id=ids, state=st.sampled_from(STATES))
    def change_a_terminal_job(self, job_id: str, state: JobState.ValueType) -> None:
        if job_id in self.model.jobs and self.model.jobs[job_id].job.state in TERMINAL:
            with pytest.raises(InvariantError):
                self.run(self.store.update_job(job_id, lambda stored: a_change(stored, state)))

    @rule(job_id=ids)
    def decide_against(self, job_id: str) -> None:
        assert self.run(self.store.update_job(job_id, lambda _: None)) == self.model.jobs.get(job_id)

    @rule(job_id=ids, second=st.integers(0, 20))
    def note_activity(self, job_id: str, second: int) -> None:
        self.run(self.store.record_activity(job_id, at := NOW + second * SECOND))
        if job_id in self.model.jobs:
            record = self.model.jobs[job_id]
            self.model.jobs[job_id] = replace(record, last_activity_at=max(at, record.last_activity_at))

    @rule(job_id=ids)
    def delete(self, job_id: str) -> None:
        """Of jobs that have ended, as the service does: the receipt and the events stay."""
        record = self.model.jobs.get(job_id)
        if record is None:
            assert not self.run(self.store.delete_job(job_id))
        elif record.job.state in TERMINAL:
            assert self.run(self.store.delete_job(job_id))
            del self.model.jobs[job_id]
            self.model.artifacts.pop(job_id)

    @rule(count=st.integers(0, 3))
    def append_events(self, count: int) -> None:
        events = [an_event() for _ in range(count)]
        self.run(self.store.append_events(events))
        self.model.tell(*events)

    # --- questions ---

    @rule(where=FILTERS, limit=st.integers(1, 3), offset=st.integers(0, 4))
    def list_newest(self, where: JobFilter, limit: int, offset: int) -> None:
        """Page by page, and from an offset: no job is left out or told twice, and every page has the total."""
        expected = self.model.admitted(where)
        page = self.run(self.store.list_jobs(where, limit=limit, offset=offset))
        assert (list(page.records), page.total) == (expected[offset : offset + limit], len(expected))
        seen: list[JobRecord] = []
        while True:
            page = self.run(self.store.list_jobs(where, limit=limit, after=place(seen[-1]) if seen else None))
            assert page.total == len(expected)
            seen += page.records
            if not page.records:
                break
        assert seen == expected

    @rule(limit=st.integers(1, 3), now=st.sampled_from((NOW, NOW + 10 * SECOND)), full=GROUPS)
    def list_live(self, limit: int, now: int, full: tuple[str, ...]) -> None:
        """The live view, the queue, the places in it, and what is unfinished."""
        live, startable = self.model.live(), self.model.startable(now, full)
        page = self.run(
            self.store.list_jobs(JobFilter(states=(QUEUED, RUNNING, CANCELLING)), limit=limit, order=JobOrder.LIVE)
        )
        assert (list(page.records), page.total) == (live[:limit], len(live))
        assert self.run(self.store.queued_jobs(now=now, limit=limit, full=full)) == startable[:limit]
        assert self.run(self.store.unfinished_jobs()) == sorted(live, key=place)
        for number, record in enumerate(self.model.queue(), 1):
            assert self.run(self.store.queue_position(record.job.job_id)) == number

    @rule(job_id=ids)
    def look(self, job_id: str) -> None:
        assert self.run(self.store.get_job(job_id)) == self.model.jobs.get(job_id)
        assert self.run(self.store.receipt(job_id)) == self.model.receipts.get(job_id)
        assert self.run(self.store.artifacts(job_id)) == self.model.artifacts.get(job_id, [])

    @invariant()
    def counters_agree(self) -> None:
        assert self.run(self.store.count_by_state()) == Counter(it.job.state for it in self.model.jobs.values())

    @invariant()
    def jobs_change_only_with_the_revision(self) -> None:
        revision = self.store.revision
        assert revision is not None
        jobs = self.run(self.store.list_serialized(JobFilter(), limit=1000))
        assert self.at_revision.setdefault(revision, jobs) == jobs

    @invariant()
    def events_are_dense_and_heard_as_they_are_stored(self) -> None:
        events = self.model.events
        assert self.run(self.store.event_bounds()) == EventBounds(first=1, last=len(events))
        assert self.run(self.store.events_after(0, limit=1000)) == events
        assert self.heard == events

    @invariant()
    def a_job_has_a_receipt_if_it_has_ended(self) -> None:
        """Those of deleted jobs stay; each is a leaf, in the order in which they came."""
        ended = {job_id for job_id, record in self.model.jobs.items() if record.job.state in TERMINAL}
        receipts = {job_id: self.run(self.store.receipt(job_id)) for job_id in self.model.receipts.keys() | ended}
        assert receipts == self.model.receipts
        assert ended <= receipts.keys()
        leaves = [receipt.leaf for receipt in self.model.receipts.values()]
        assert self.run(self.store.receipt_leaves()) == leaves


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
