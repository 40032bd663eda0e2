"""`recover`: jobs come back as their receipts tell them, nothing else does, and nothing is deleted."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from faults.ledger import broken_promises
from jobledger.v1.job_pb2 import ARTIFACT_STATUS_COMPLETE, ARTIFACT_STATUS_QUARANTINED, Artifact
from jobledger_server.core.ids import is_job_id
from jobledger_server.core.ports import JobFilter, JobRecord, StoredReceipt
from jobledger_server.core.ports.archive import ArchiveError
from jobledger_server.offline.recover import RecoveryError, recover
from jobledger_server.stores.sqlite import SqliteStore
from jobledger_server.stores.sqlite.rebuild import EVENTS_AHEAD
from support.installations import installation, receipts_of
from support.records import CANCELLED, COMPLETED, FAILED, RUNNING, a_job_id

Contents = tuple[list[JobRecord], list[StoredReceipt], list[list[Artifact]]]


async def contents(data_dir: Path) -> Contents:
    """Records (but for what only a job that runs needs), receipts and artifacts."""
    async with SqliteStore(data_dir / "jobledger.db") as store:
        records = (await store.list_jobs(JobFilter(), limit=100)).records
        return (
            [JobRecord(job=it.job, number=it.number, last_activity_at=it.last_activity_at) for it in records],
            await receipts_of(store),
            [list(await store.artifacts(it.job.job_id)) for it in records],
        )


def lose(data_dir: Path) -> None:
    for file in data_dir.glob("jobledger.db*"):
        file.unlink()


def damage(data_dir: Path) -> None:
    """Pages in the middle; what has the name of its log goes as well."""
    database = data_dir / "jobledger.db"
    data = bytearray(database.read_bytes())
    data[5000:30000] = b"\xff" * 25000
    database.write_bytes(data)


def overwrite(data_dir: Path) -> None:
    (data_dir / "jobledger.db").write_bytes(b"this is no database" * 1000)


@pytest.mark.parametrize("harm", [lose, damage, overwrite])
async def test_a_lost_or_damaged_database_comes_back_with_all_that_had_ended(data_dir: Path, harm: object) -> None:
    before = await contents(data_dir)
    assert {record.job.state for record in before[0]} == {COMPLETED, FAILED, CANCELLED}
    assert callable(harm)
    harm(data_dir)
    harmed = {path.name: path.read_bytes() for path in data_dir.glob("jobledger.db")}
    done = recover(data_dir)
    assert (done.receipts, done.jobs, done.damaged, done.unfinished) == (4, 4, [], [])
    assert await contents(data_dir) == before
    kept = [path.read_bytes() for path in data_dir.glob("jobledger.db.before-*") if not path.name.endswith(("l", "m"))]
    assert kept == [*harmed.values()]
    assert not [told for told in broken_promises(data_dir / "jobledger.db") if "its events end with None" not in told]
    assert recover(data_dir).database == ""


async def test_the_log_goes_on_where_it_was_and_numbers_are_never_given_again(data_dir: Path) -> None:
    records, receipts, artifacts = await contents(data_dir)
    overwrite(data_dir)
    recover(data_dir)
    async with installation(data_dir) as it:
        job_id = await it.ended(outputs={"more": b"more"})
        receipt = await it.store.receipt(job_id)
        [artifact] = await it.store.artifacts(job_id)
        record = await it.served.get(job_id)
        bounds = await it.store.event_bounds()
        first = (await it.store.events_after(0, limit=1))[0].sequence_number
    assert receipt is not None
    assert receipt.leaf_index == len(receipts)
    assert artifact.id > max(old.id for some in artifacts for old in some)
    assert record.number > max(old.number for old in records)
    assert bounds.first == first == EVENTS_AHEAD + 1, "a cursor from before is older than all that is kept"


async def test_an_older_database_is_replaced_and_what_it_alone_knew_is_named(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with installation(data_dir) as it:
        await it.ended()
        lost = {await it.started(), await it.started()}
        waiting = await it.served.create()
    shutil.copyfile(data_dir / "jobledger.db", tmp_path / "older.db")
    async with installation(data_dir) as it:
        await it.served.reaches(waiting, RUNNING)
    before = await contents(data_dir)
    shutil.copyfile(tmp_path / "older.db", data_dir / "jobledger.db")
    done = recover(data_dir)
    assert done.database == "it is older than the archive: it has 1 receipts of 3"
    assert done.forgotten == [waiting]
    assert [job.job_id for job in done.unfinished] == [waiting]
    records, receipts, _ = await contents(data_dir)
    assert receipts == before[1]
    assert {record.job.job_id for record in records} == {it.job.job_id for it in before[0]} - {waiting} > lost


async def test_another_history_of_the_same_length_is_replaced(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with installation(data_dir) as it:
        await it.ended()
    shutil.copytree(data_dir, tmp_path / "other")
    for directory in (data_dir, tmp_path / "other"):
        async with installation(directory) as it:
            await it.ended()
    before = await contents(data_dir)
    shutil.copyfile(tmp_path / "other" / "jobledger.db", data_dir / "jobledger.db")
    assert recover(data_dir).database == "its receipt 1 is another one than that of the archive"
    assert await contents(data_dir) == before


async def test_artifacts_whose_bytes_are_gone_or_others_are_named_and_never_served_as_good(data_dir: Path) -> None:
    records, _, _ = await contents(data_dir)
    async with SqliteStore(data_dir / "jobledger.db") as store:
        hashes = {it.job.job_id: artifact.sha256 for it in records for artifact in await store.artifacts(it.job.job_id)}
    (gone, first), (changed, second) = sorted(hashes.items())
    (data_dir / "blobs" / first[:2] / first[2:]).unlink()
    (data_dir / "blobs" / second[:2] / second[2:]).write_bytes(b"other")
    overwrite(data_dir)
    assert sorted(recover(data_dir).damaged) == sorted([(gone, "result"), (changed, "result")])
    async with SqliteStore(data_dir / "jobledger.db") as store:
        for job_id in (gone, changed):
            [artifact] = await store.artifacts(job_id)
            assert artifact.status == ARTIFACT_STATUS_QUARANTINED


async def test_a_receipt_that_a_job_forged_in_its_directory_is_not_even_read(data_dir: Path) -> None:
    """Neither for a job that has a receipt, nor for one that the archive knows nothing of."""
    before = await contents(data_dir)
    known, unknown = before[0][0].job.job_id, a_job_id()
    for job_id in (known, unknown):
        (data_dir / "jobs" / job_id / "output").mkdir(parents=True, exist_ok=True)
        copy = data_dir / "jobs" / job_id / "receipt.json"
        copy.unlink(missing_ok=True)
        copy.write_text(f'{{"job_id": "{job_id}", "receipt_version": 1, "summary": {{"status": "completed"}}}}')
        copy.with_name("receipt.dsse.json").write_bytes(before[1][0].envelope)
    overwrite(data_dir)
    done = recover(data_dir)
    assert await contents(data_dir) == before
    assert [(job.job_id, bool(job.running)) for job in done.unfinished] == [(unknown, False)]
    aside = Path(done.aside["unfinished"])
    assert (aside / "jobs" / unknown / "receipt.json").exists()
    assert not (data_dir / "jobs" / unknown).exists()
    assert (data_dir / "jobs" / known).exists()
    assert aside.stat().st_mode & 0o077 == 0


async def test_a_job_that_was_deleted_before_it_was_archived_stays_deleted_and_its_receipt_comes_back(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "data"
    async with installation(data_dir) as it:
        job_id = await it.ended()
        receipt = await it.store.receipt(job_id)
        await it.store.delete_job(job_id)
    shutil.rmtree(data_dir / "receipts")
    async with installation(data_dir) as it:
        await it.archiver.caught_up()
    overwrite(data_dir)
    assert (recover(data_dir).receipts, (await contents(data_dir))[0]) == (1, [])
    async with SqliteStore(data_dir / "jobledger.db") as store:
        assert await store.receipt(job_id) == receipt


async def test_a_dry_run_says_the_same_and_changes_nothing(data_dir: Path) -> None:
    overwrite(data_dir)
    (data_dir / "jobs" / a_job_id()).mkdir()
    before = {path: path.read_bytes() for path in data_dir.rglob("*") if path.is_file()}
    would = recover(data_dir, dry_run=True)
    assert {path: path.read_bytes() for path in data_dir.rglob("*") if path.is_file()} == before
    did = recover(data_dir)
    assert (would.database, would.receipts, would.jobs) == (did.database, did.receipts, did.jobs)
    assert [job.job_id for job in would.unfinished] == [job.job_id for job in did.unfinished]
    assert all(is_job_id(job.job_id) for job in did.unfinished)


async def test_cut_short_anywhere_it_is_done_by_the_next_one(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await contents(data_dir)
    (data_dir / "token").write_text("a token")
    (data_dir / "jobs" / a_job_id()).mkdir()
    pristine, points = data_dir.parent / "pristine", 0
    overwrite(data_dir)
    shutil.copytree(data_dir, pristine)
    complete = False
    while not complete:
        left = points
        rename = Path.rename

        def dying(self: Path, target: Path, rename: object = rename) -> Path:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            assert callable(rename)
            return Path(rename(self, target))

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", dying)
            try:
                recover(data_dir)
            except KeyboardInterrupt:
                points += 1
            else:
                complete = True
        recover(data_dir)
        assert await contents(data_dir) == before
        shutil.rmtree(data_dir)
        shutil.copytree(pristine, data_dir)
    assert points == 4


async def test_what_is_sound_is_left_alone(data_dir: Path) -> None:
    done = recover(data_dir)
    assert (done.database, done.receipts, done.aside) == ("", 4, {})
    assert not [*data_dir.glob("*.before-*")]


async def test_without_an_archive_it_says_what_else_there_is(data_dir: Path) -> None:
    shutil.rmtree(data_dir / "receipts")
    with pytest.raises(RecoveryError, match=r"There is no archive in .*: restore a backup"):
        recover(data_dir)


async def test_no_token_comes_back(data_dir: Path) -> None:
    (data_dir / "token").write_text("jl_old")
    overwrite(data_dir)
    done = recover(data_dir)
    assert not (data_dir / "token").exists()
    assert Path(done.aside["token"]).read_text() == "jl_old"
    with closing(sqlite3.connect(data_dir / "jobledger.db")) as connection:
        assert connection.execute("SELECT count(*) FROM tokens").fetchone() == (0,)


async def test_what_a_quarantined_artifact_was_is_looked_at_anew(data_dir: Path) -> None:
    """Found damaged before it was archived, and sound again since."""
    records, _, artifacts = await contents(data_dir)
    async with SqliteStore(data_dir / "jobledger.db") as store:
        [first] = next(some for some in artifacts if some)
        quarantined = Artifact()
        quarantined.CopyFrom(first)
        quarantined.status = ARTIFACT_STATUS_QUARANTINED
        await store.set_artifact_status(quarantined)
    shutil.rmtree(data_dir / "receipts")
    async with installation(data_dir) as it:
        await it.archiver.caught_up()
    overwrite(data_dir)
    recover(data_dir)
    assert {it.status for some in (await contents(data_dir))[2] for it in some} == {ARTIFACT_STATUS_COMPLETE}
    assert len(records) == 4


async def test_a_job_that_was_deleted_after_it_was_archived_stays_deleted_too(data_dir: Path) -> None:
    """And a note of it that nobody signed, which a job could have written, deletes nothing."""
    records, receipts, _ = await contents(data_dir)
    gone, kept = records[0].job.job_id, records[1].job.job_id
    async with installation(data_dir) as it:
        await it.archiver.note_deleted([gone])
        await it.store.delete_job(gone)
    overwrite(data_dir)
    deletions = data_dir / "receipts" / "deletions.jsonl"
    with deletions.open("a") as file:
        file.write('{"note": "cut off by a crash')
    done = recover(data_dir)
    assert (done.receipts, done.jobs) == (4, 3)
    assert [it.job.job_id for it in (await contents(data_dir))[0]] == [it.job.job_id for it in records[1:]]
    async with SqliteStore(data_dir / "jobledger.db") as store:
        stored = await store.receipt(gone)
    assert stored in receipts
    async with installation(data_dir) as it:
        await it.archiver.note_deleted([kept])
    assert len(deletions.read_text().splitlines()) == 2, "what was cut off is gone"
    deletions.write_text(deletions.read_text().replace(gone, a_job_id()))
    overwrite(data_dir)
    with pytest.raises(ArchiveError, match="not signed by the log's key"):
        recover(data_dir)
