"""A signature that takes its time holds up the end of its own job alone; one that is not to be had loses none."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from operator import eq
from pathlib import Path

import pytest
from jobledger.receipts import verify
from jobledger.v1.job_service_pb2 import CancelJobRequest
from jobledger_server.core.ports import StoreUnavailableError
from jobledger_server.core.times import SECOND, micros
from jobledger_server.service import finishing
from jobledger_server.service.damage import Damage
from jobledger_server.service.engine import Engine
from jobledger_server.service.events import EventHub
from jobledger_server.service.external_signer import ExternalSigner, SigningError
from jobledger_server.service.signing import KeyRing
from jobledger_server.service.storage import Storage
from jobledger_server.stores.sqlite import SqliteStore
from receipt_samples import KEYS, SIGNER
from support.clock import ManualClock
from support.eventually import eventually
from support.executors import FAILURE, ScriptedExecutor
from support.records import CANCELLED, CANCELLING, COMPLETED, FAILED, QUEUED, RUNNING
from support.services import ANYBODY, Services, serving


class HeldSigner(ExternalSigner):
    """Signs when it is let go; before that it fails as often as it is told to."""

    def __init__(self) -> None:
        super().__init__(("held",), SIGNER.key.public_key())
        self.asked: list[bytes] = []
        self.failures = 0
        self.let_go = asyncio.Event()

    async def sign(self, data: bytes) -> bytes:
        self.asked.append(data)
        if self.failures:
            self.failures -= 1
            raise SigningError("the HSM is locked")
        await self.let_go.wait()
        return SIGNER.key.sign(data)

    async def was_asked(self, times: int) -> None:
        async def look() -> int:
            return len(self.asked)

        await eventually(look, until=lambda seen: seen >= times)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "RETRY_SECONDS", (0.01,))


@pytest.fixture
async def signer() -> HeldSigner:
    return HeldSigner()


@pytest.fixture
def keys(tmp_path: Path, clock: ManualClock, signer: HeldSigner) -> KeyRing:
    return KeyRing.open(tmp_path / "keys", clock, external=signer)


@pytest.fixture
async def served(
    tmp_path: Path, store: SqliteStore, clock: ManualClock, executor: ScriptedExecutor, keys: KeyRing
) -> AsyncIterator[Services]:
    async with serving(tmp_path, store=store, clock=clock, executor=executor, keys=keys) as served:
        yield served


async def running(served: Services) -> str:
    job_id = await served.create()
    await served.reaches(job_id, RUNNING)
    return job_id


async def status_in_receipt(store: SqliteStore, job_id: str) -> object:
    """What the receipt says, if it is valid."""
    stored = await store.receipt(job_id)
    assert stored is not None
    report = verify(stored.envelope, keys=KEYS, job_id=job_id)
    assert report.exit_code == 0, report.checks
    assert report.receipt is not None
    return report.receipt["summary"]["status"]


async def test_a_slow_signer_delays_the_end_of_its_own_job_and_no_other_write(
    served: Services, store: SqliteStore, executor: ScriptedExecutor, signer: HeldSigner
) -> None:
    job_id = await running(served)
    executor.end(job_id, 1)
    await signer.was_asked(1)
    other = await running(served)
    await store.record_activity(job_id, served.clock.now() + 1)
    assert (await served.get(job_id)).job.state == RUNNING
    assert await store.receipt(job_id) is None
    signer.let_go.set()
    await served.reaches(job_id, COMPLETED)
    assert await status_in_receipt(store, job_id) == "completed"
    # What was noted meanwhile was no reason to sign once more.
    assert len(signer.asked) == 1
    assert (await served.get(other)).job.state == RUNNING


async def test_a_signer_that_fails_loses_no_end(
    served: Services, store: SqliteStore, executor: ScriptedExecutor, signer: HeldSigner
) -> None:
    signer.failures = 3
    signer.let_go.set()
    job_id = await running(served)
    executor.end(job_id, 1, FAILURE)
    overdue = served.finisher.overdue
    job = (await served.reaches(job_id, FAILED)).job
    await eventually(lambda: asyncio.sleep(0, len(overdue)), until=lambda late: late == 0)
    assert overdue.trouble == ""
    assert (job.error_code, job.exit_code) == ("E_JOB_EXIT_NONZERO", 1)
    assert await status_in_receipt(store, job_id) == "failed"
    assert len(signer.asked) == 4


async def test_ends_that_can_not_be_signed_are_counted_and_health_says_why(
    tmp_path: Path,
    served: Services,
    executor: ScriptedExecutor,
    signer: HeldSigner,
    keys: KeyRing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finishing, "RETRY_SECONDS", (600,))
    overdue = served.finisher.overdue
    engine = an_engine(served, keys)
    assert (await engine.status()).health == "ok"
    signer.failures = 2
    for number in (1, 2):
        executor.end(await running(served), 1)
        await eventually(lambda: asyncio.sleep(0, len(overdue)), until=partial(eq, number))
    status = await engine.status()
    assert status.waiting_ends == 2
    assert status.health == "ends of jobs can't be stored just now: the HSM is locked"
    # Whoever sees some workspaces only is not told how many wait in all.
    assert (await engine.status(["elsewhere"])).waiting_ends == 0


def an_engine(served: Services, keys: KeyRing) -> Engine:
    events = EventHub(store=served.store, clock=served.clock)
    storage = Storage(clock=served.clock, free=lambda: 2**40, warn_free_bytes=1, min_free_bytes=1)
    return Engine(
        store=served.store,
        clock=served.clock,
        events=events,
        slots=served.slots,
        storage=storage,
        damage=Damage(),
        keys=keys,
        overdue=served.finisher.overdue,
        isolation="none",
    )


async def test_an_end_that_waits_for_its_signature_is_not_lost_in_a_crash(
    tmp_path: Path,
    store: SqliteStore,
    clock: ManualClock,
    executor: ScriptedExecutor,
    signer: HeldSigner,
    keys: KeyRing,
) -> None:
    async with serving(tmp_path, store=store, clock=clock, executor=executor, keys=keys) as served:
        job_id = await running(served)
        executor.end(job_id, 1)
        await signer.was_asked(1)
    assert await store.receipt(job_id) is None
    signer.let_go.set()
    async with serving(tmp_path, store=store, clock=clock, executor=executor, keys=keys) as served:
        await served.reaches(job_id, COMPLETED)
    assert await status_in_receipt(store, job_id) == "completed"


async def test_a_job_that_changes_while_its_end_is_signed_is_decided_on_anew(
    served: Services, store: SqliteStore, executor: ScriptedExecutor, signer: HeldSigner
) -> None:
    """It is cancelled after it has failed by itself: what is stored and what is signed say the same, and the end stays
    when it was.
    """
    job_id = await running(served)
    served.clock.advance(1)
    ended_at = served.clock.now()
    executor.end(job_id, 1, replace(FAILURE, ended_at=ended_at))
    await signer.was_asked(1)
    served.clock.advance(8)
    await served.cancelling.cancel(CancelJobRequest(job_id=job_id), ANYBODY)
    await served.reaches(job_id, CANCELLING)
    signer.let_go.set()
    job = (await served.reaches(job_id, FAILED)).job
    assert (micros(job.completed_at), micros(job.cancel_requested_at)) == (ended_at, ended_at + 8 * SECOND)
    assert await status_in_receipt(store, job_id) == "failed"
    assert len(signer.asked) == 2


async def test_a_queued_job_whose_cancel_cannot_be_signed_stays_and_can_be_cancelled_later(
    served: Services, store: SqliteStore, signer: HeldSigner
) -> None:
    for _ in range(2):
        await running(served)
    waits = await served.create()
    signer.failures = 1
    signer.let_go.set()
    with pytest.raises(StoreUnavailableError):
        await served.cancelling.cancel(CancelJobRequest(job_id=waits), ANYBODY)
    record = await served.get(waits)
    assert (record.job.state, record.cancel) == (QUEUED, None)
    answer = await served.cancelling.cancel(CancelJobRequest(job_id=waits), ANYBODY)
    assert (answer.state, answer.message) == (CANCELLED, "Job cancelled")
    assert await status_in_receipt(store, waits) == "cancelled"


async def test_a_late_cancel_changes_neither_the_receipt_nor_the_job(
    served: Services, store: SqliteStore, executor: ScriptedExecutor, signer: HeldSigner
) -> None:
    signer.let_go.set()
    job_id = await running(served)
    executor.end(job_id, 1)
    await served.reaches(job_id, COMPLETED)
    before = await store.receipt(job_id)
    await served.finisher.attempt_ended(job_id, 1, FAILURE)
    assert await store.receipt(job_id) == before
    assert len(signer.asked) == 1
