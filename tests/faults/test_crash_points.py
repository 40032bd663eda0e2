"""Whatever writing system call is the last one, what was answered for is there and nothing is there by halves.

Every one of them, not some: each operation is killed before its first such call, its second, and so on to its end.
"""

import asyncio
import json
import os
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from executors.harness import PATIENCE, Lab
from faults import ptrace
from faults.crash_points import FORBIDDEN, KEY, LINES, OUTPUT, a_second_record, crash_job
from faults.ledger import broken_promises
from faults.serving import not_possible
from jobledger.receipts import load_keys, verify
from jobledger.v1.job_service_pb2 import CancelJobRequest
from jobledger_server.blobs.files import FileBlobs
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.ports import EndReason, JobFilter, JobRecord, Outcome, Running, StoredReceipt
from jobledger_server.core.states import is_terminal
from jobledger_server.executors.local import cgroup
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.offline.recover import recover
from jobledger_server.stores.sqlite import SqliteStore
from jobledger_server.stores.sqlite.connection import connect
from jobledger_server.stores.sqlite.migrate import LEDGER, migrate, shipped_migrations
from support.clock import ManualClock
from support.executors import SUCCESS, ScriptedExecutor
from support.installations import archiving
from support.records import a_record, state_changed
from support.services import ANYBODY, Services, serving

PROGRAM = Path(__file__).with_name("crash_points.py")
SCHEMAS = len(shipped_migrations())


@dataclass(frozen=True)
class Crash:
    """A run of an operation: what it had answered for when it ended, before the last of its writing `calls`."""

    directory: Path
    acknowledged: list[str]
    calls: list[str]
    killed: bool

    def __str__(self) -> str:
        return f"killed before its call {len(self.calls)}, {self.calls[-1]}" if self.killed else "not killed"

    @property
    def database(self) -> Path:
        return self.directory / "jobledger.db"


async def crashes(operation: str, place: Path, *, at_least: int) -> list[Crash]:
    """Every crash of an operation, and at last its run to the end, which must have had so many points to crash at."""
    if not ptrace.possible():
        not_possible("ptrace", "this is not Linux on x86-64 or 64-bit ARM")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), operation, str(place)), stdout=asyncio.subprocess.PIPE, env=environment
    )
    output, _ = await program.communicate()
    if program.returncode == FORBIDDEN:
        not_possible("ptrace", "the system forbids it: see its seccomp profile, or kernel.yama.ptrace_scope")
    assert program.returncode == 0
    told = [json.loads(line) for line in output.splitlines()]
    seen = [Crash(Path(it["directory"]), it["acknowledged"], it["calls"], it["killed"]) for it in told]
    assert [crash.killed for crash in seen] == [True] * (len(seen) - 1) + [False]
    assert [len(crash.calls) for crash in seen[:-1]] == list(range(1, len(seen)))
    assert len(seen) > at_least
    assert seen[-1].acknowledged
    return seen


async def test_a_process_is_killed_right_before_the_call_that_was_named(tmp_path: Path) -> None:
    """All others rest on this: the call before was made, this one was not, in whatever thread."""
    seen = await crashes("probe", tmp_path, at_least=6)
    there = [sorted(path.name for path in crash.directory.iterdir()) for crash in seen]
    assert there == [[], ["a"], ["a", "b"], ["b", "c"], ["b", "c", "d"], ["b", "c"], ["b", "c"]]
    assert [crash.acknowledged for crash in seen] == [[]] * 6 + [["ended"]]


async def test_a_job_whose_creation_is_cut_short_anywhere_is_whole_or_not_there(tmp_path: Path) -> None:
    for crash in await crashes("create", tmp_path, at_least=20):
        assert broken_promises(crash.database) == [], crash
        async with SqliteStore(crash.database) as store:
            made = await store.get_job("job_second_1")
            assert made or not crash.acknowledged, crash
            again = a_second_record(2)
            answer = await store.create_job(again, [state_changed(again)], KEY)
            assert answer.job.job_id == ("job_second_1" if made else "job_second_2"), crash
        assert broken_promises(crash.database) == [], crash


async def test_a_job_whose_end_is_cut_short_anywhere_has_ended_with_its_receipt_or_not(tmp_path: Path) -> None:
    """Whatever was archived by then, too: the next server goes on with it, and the database can be made of it anew."""
    ended = Counter[bool]()
    for crash in await crashes("finish", tmp_path, at_least=30):
        assert broken_promises(crash.database) == [], crash
        ended[await end_again(crash)] += 1
        assert broken_promises(crash.database) == [], crash
        crash.database.write_bytes(b"")
        assert recover(crash.directory).receipts == 2, crash
    assert ended[False] > 10
    assert ended[True] > 3


async def end_again(crash: Crash) -> bool:
    """What the next server does with the end that was cut short, and once more. Returns whether it was stored."""
    executor = ScriptedExecutor(clock=(clock := ManualClock()))
    async with SqliteStore(crash.database) as store:
        first, job_id = [record.job.job_id for record in await jobs_of(store)]
        before = await store.receipt(job_id)
        assert before or not crash.acknowledged, crash
        executor.outcomes[job_id, 1] = SUCCESS
        async with (
            serving(crash.directory, store=store, clock=clock, executor=executor) as served,
            archiving(crash.directory, store=store, clock=clock) as archiver,
        ):
            await check_end(crash, served, job_id, before)
            receipt = await store.receipt(job_id)
            await served.finisher.attempt_ended(job_id, 1, SUCCESS)
            await check_end(crash, served, job_id, receipt)
            with pytest.raises(ServiceError) as caught:
                await served.cancelling.cancel(CancelJobRequest(job_id=job_id), ANYBODY)
            assert caught.value.reason == Reason.ERROR_REASON_JOB_ALREADY_FINISHED, crash
            await check_end(crash, served, job_id, receipt)
            assert (await archiver.caught_up()).size == 2, crash
        assert len(await store.receipt_leaves()) == len({first, job_id})
    return before is not None


async def check_end(crash: Crash, served: Services, job_id: str, expected: StoredReceipt | None) -> None:
    """The job has ended, with its artifact, its bytes, and its receipt: the expected one, if it had one before."""
    assert is_terminal((await served.get(job_id)).job.state), crash
    receipt = await served.store.receipt(job_id)
    assert receipt is not None, crash
    assert expected in (receipt, None), crash
    keys = load_keys(crash.directory / "keys" / "keys.json")
    assert verify(receipt.envelope, keys=keys, job_id=job_id).exit_code == 0, crash
    copy = crash.directory / "jobs" / job_id / "receipt.json"
    assert not copy.exists() or copy.read_bytes() == receipt.receipt, crash
    [artifact] = await served.store.artifacts(job_id)
    blobs = FileBlobs(crash.directory / "blobs")
    assert b"".join([part async for part in blobs.read(artifact.sha256, 0, len(OUTPUT))]) == OUTPUT, crash


async def jobs_of(store: SqliteStore) -> list[JobRecord]:
    """Oldest first."""
    return sorted((await store.list_jobs(JobFilter(), limit=10)).records, key=lambda record: record.number)


@pytest.mark.parametrize("version", range(SCHEMAS))
async def test_a_migration_that_is_cut_short_anywhere_leaves_a_schema_from_which_the_next_one_goes_on(
    tmp_path: Path, version: int
) -> None:
    last = version + 1 if version else SCHEMAS
    for crash in await crashes(f"migrate-{version}", tmp_path, at_least=20):
        found = schema(crash.database)
        assert found in [clean_schema(step) for step in range(version, last + 1)] or not found, crash
        assert found == clean_schema(last) or not crash.acknowledged, crash
        async with SqliteStore(crash.database) as store:
            record = a_record()
            await store.create_job(record, [state_changed(record)])
        assert schema(crash.database) == clean_schema(SCHEMAS), crash
        assert broken_promises(crash.database) == [], crash


Schema = list[tuple[str, ...]]


def schema(database: Path) -> Schema:
    """Everything that the file defines, and the steps that it has taken; empty where there is nothing yet."""
    with closing(sqlite3.connect(database)) as connection:
        defined = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2").fetchall()
        taken = (
            connection.execute("SELECT name, sha256 FROM schema_migrations ORDER BY 1").fetchall() if defined else []
        )
    return defined + taken


@cache
def clean_schema(version: int) -> Schema:
    """That of a database which came to a version with nothing in between; version 0 has no steps."""
    with TemporaryDirectory() as place:
        database = Path(place) / "clean.db"
        with closing(connect(database, busy_timeout=0)) as connection:
            connection.execute(LEDGER)
            if version:
                migrate(connection, shipped_migrations()[:version])
        return schema(database)


async def test_a_job_whose_supervisor_is_killed_anywhere_starts_once_at_most_and_its_end_is_told(
    tmp_path: Path,
) -> None:
    lab, kinds = Lab(tmp_path), Counter[str]()
    seen = await crashes("supervise", tmp_path, at_least=20)
    async with lab.executor() as executor:
        for crash in seen:
            async with asyncio.timeout(PATIENCE):
                kinds[await found_after(crash, lab, executor)] += 1
    for directory in (lab.root / "data" / "control").iterdir():
        if group := cgroup.recorded(ControlDir(directory)):
            cgroup.remove(group)  # the next server would do so, in its time
    assert all(kinds[kind] for kind in ("unstarted", "lost", "exited")), kinds


async def found_after(crash: Crash, lab: Lab, executor: LocalExecutor) -> str:
    """What a server finds of the attempt, which it starts where it was not started yet."""
    launch = crash_job(lab, crash.directory.name)
    found = await executor.find(launch.job_id, 1)
    assert not isinstance(found, Running), crash
    outcome = found or await lab.run(executor, launch)
    assert isinstance(outcome, Outcome)
    assert await executor.find(launch.job_id, 1) == await executor.start(launch) == outcome, crash
    starts = (lab.root / "starts").read_text().splitlines().count(launch.job_id)
    said = list(lab.messages(launch))
    if outcome.reason is EndReason.LOST:
        assert crash.killed, crash
        assert starts <= 1, crash
        assert said == LINES[: len(said)], crash
        return "lost"
    assert (outcome.reason, outcome.exit_code, starts, said) == (EndReason.EXITED, 0, 1, LINES), crash
    return "exited" if found else "unstarted"
