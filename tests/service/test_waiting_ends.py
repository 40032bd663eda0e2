"""A job that is over before it is looked at is stored with its end; where that can't be, it holds up no other one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from operator import eq
from pathlib import Path
from typing import Any, Protocol

import pytest
from jobledger.receipts import verify
from jobledger.v1.job_service_pb2 import CancelJobRequest
from jobledger_server.core.ports import EndReason, JobChange, JobRecord, Outcome, StoreUnavailableError
from jobledger_server.core.states import is_terminal
from jobledger_server.core.times import micros, rfc3339
from jobledger_server.service import finishing
from jobledger_server.service.external_signer import ExternalSigner, SigningError
from jobledger_server.service.signing import KeyRing
from jobledger_server.stores.sqlite import SqliteStore
from receipt_samples import SIGNER
from support.clock import ManualClock
from support.eventually import eventually
from support.executors import ScriptedExecutor
from support.records import CANCELLING, COMPLETED, FAILED, QUEUED, RUNNING
from support.services import ANYBODY, Services, serving

NEVER_BEGAN = Outcome(reason=EndReason.SPAWN_FAILED, message="no such file")


class Trouble(Protocol):
    """Why ends can't be stored; `over` once they can."""

    reason: str
    over: bool


class FailingSigner(ExternalSigner):
    reason = "the HSM is locked"

    def __init__(self) -> None:
        super().__init__(("failing",), SIGNER.key.public_key())
        self.over = False

    async def sign(self, data: bytes) -> bytes:
        if not self.over:
            raise SigningError(self.reason)
        return SIGNER.key.sign(data)


class FullDisk:
    """A store that has room for small changes, and for no end with its receipt."""

    reason = "disk full"

    def __init__(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.over = False
        self._update = store.update_job
        monkeypatch.setattr(store, "update_job", self)

    async def __call__(self, job_id: str, decide: Callable[[JobRecord], JobChange | None]) -> JobRecord | None:
        def refuse(current: JobRecord) -> JobChange | None:
            change = decide(current)
            if change is not None and is_terminal(change.record.job.state) and not self.over:
                raise StoreUnavailableError(self.reason)
            return change

        return await self._update(job_id, refuse)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "RETRY_SECONDS", (0.01,))


@pytest.fixture(params=["no signature", "full disk"])
def trouble(request: pytest.FixtureRequest, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    return FailingSigner() if request.param == "no signature" else FullDisk(store, monkeypatch)


@pytest.fixture
def keys(tmp_path: Path, clock: ManualClock, trouble: Trouble) -> KeyRing:
    return KeyRing.open(tmp_path / "keys", clock, external=trouble if isinstance(trouble, FailingSigner) else None)


@pytest.fixture
def life(
    tmp_path: Path, store: SqliteStore, clock: ManualClock, executor: ScriptedExecutor, keys: KeyRing
) -> Callable[..., AbstractAsyncContextManager[Services]]:
    return partial(serving, tmp_path, store=store, clock=clock, executor=executor, keys=keys)


@pytest.fixture
async def served(life: Callable[..., AbstractAsyncContextManager[Services]]) -> AsyncIterator[Services]:
    async with life() as served:
        yield served


async def waiting(served: Services, number: int) -> None:
    """Returns when so many ends wait."""
    await eventually(lambda: asyncio.sleep(0, len(served.finisher.overdue)), until=partial(eq, number))


async def quick_job(served: Services, outcome: Outcome | None = None, **fields: Any) -> str:
    """A job that ran for one second and was over at the first look, while its end can't be stored."""
    started = served.clock.now()
    served.clock.advance(1)
    served.executor.quick.append(
        outcome or Outcome(reason=EndReason.EXITED, exit_code=0, started_at=started, ended_at=served.clock.now())
    )
    job_id = await served.create(created_at=started, **fields)
    await waiting(served, 1)
    served.clock.advance(60)
    return job_id


async def receipt_of(served: Services, keys: KeyRing, job_id: str) -> dict[str, Any]:
    stored = await served.store.receipt(job_id)
    assert stored is not None
    ring = keys.keys()
    trusted = {key.key_id: key.public_key_pem.encode() for key in ring}
    report = verify(stored.envelope, keys=trusted, job_id=job_id)
    assert report.exit_code == 0, report.checks
    assert report.receipt is not None
    return dict(report.receipt)


async def test_an_end_that_waits_holds_up_no_other_job(
    served: Services, executor: ScriptedExecutor, trouble: Trouble, keys: KeyRing, clock: ManualClock
) -> None:
    begun = clock.now()
    first = await quick_job(served)
    other = await served.create()
    await served.reaches(other, RUNNING)
    job = (await served.reaches(first, RUNNING)).job
    assert (job.attempt, micros(job.started_at)) == (1, begun)
    assert trouble.reason in served.finisher.overdue.trouble
    # As for any end: its slot is free when it is stored.
    assert served.slots.available == 0
    executor.end(other, 1)
    await waiting(served, 2)
    trouble.over = True
    for job_id in (first, other):
        await served.reaches(job_id, COMPLETED)
        assert (await receipt_of(served, keys, job_id))["summary"]["status"] == "completed"
    await waiting(served, 0)
    job = (await served.get(first)).job
    assert (micros(job.started_at), micros(job.completed_at)) == (begun, begun + 1_000_000)
    assert (await receipt_of(served, keys, first))["timestamps"]["started"] == rfc3339(begun)
    told = [
        event.state_changed.new_state
        for event in await served.store.events_after(0, limit=99)
        if event.job.job_id == first
    ]
    assert told == [QUEUED, RUNNING, COMPLETED]
    await eventually(lambda: asyncio.sleep(0, served.slots.available), until=partial(eq, 2))
    assert len(executor.started) == 2


async def test_a_job_whose_end_waits_has_run_and_can_not_be_cancelled_as_one_that_waits(
    served: Services, trouble: Trouble, keys: KeyRing
) -> None:
    job_id = await quick_job(served)
    answer = await served.cancelling.cancel(CancelJobRequest(job_id=job_id), ANYBODY)
    assert (answer.state, answer.message) == (CANCELLING, "Cancellation requested")
    trouble.over = True
    await served.reaches(job_id, COMPLETED)
    assert (await receipt_of(served, keys, job_id))["summary"]["status"] == "completed"


async def test_an_attempt_that_never_began_holds_up_no_other_job_either(
    served: Services, trouble: Trouble, keys: KeyRing
) -> None:
    """It has no start to store: it waits until its end can be."""
    job_id = await quick_job(served, NEVER_BEGAN)
    await served.reaches(await served.create(), RUNNING)
    assert (await served.get(job_id)).job.state == QUEUED
    trouble.over = True
    job = (await served.reaches(job_id, FAILED)).job
    assert (job.error_code, job.attempt, job.HasField("started_at")) == ("E_JOB_SPAWN_FAILED", 0, False)
    await receipt_of(served, keys, job_id)


@pytest.mark.parametrize("stored", [True, False], ids=["start stored", "nothing stored"])
async def test_an_end_that_waits_is_not_lost_in_a_crash(
    life: Callable[..., AbstractAsyncContextManager[Services]],
    executor: ScriptedExecutor,
    trouble: Trouble,
    keys: KeyRing,
    clock: ManualClock,
    stored: bool,
) -> None:
    begun = clock.now()
    async with life(schedule=stored) as served:
        if stored:
            job_id = await quick_job(served)
            await served.reaches(job_id, RUNNING)
        else:
            job_id = await served.create()
            clock.advance(1)
            executor.outcomes[job_id, 1] = Outcome(
                reason=EndReason.EXITED, exit_code=0, started_at=begun, ended_at=clock.now()
            )
    async with AsyncExitStack() as stack:
        opening = asyncio.ensure_future(stack.enter_async_context(life()))
        await asyncio.wait({opening}, timeout=0.05)
        trouble.over = True
        served = await opening
        job = (await served.reaches(job_id, COMPLETED)).job
        assert (micros(job.started_at), micros(job.completed_at)) == (begun, begun + 1_000_000)
        await receipt_of(served, keys, job_id)
    assert len(executor.started) == stored
