"""`backup`: a copy that is whole or not there, and from which a server goes on without harm to the original."""

import json
import os
import shutil
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from jobledger.receipts import load_keys, verify
from jobledger_server.access.admin import TokenAdmin
from jobledger_server.archive.files import ReceiptArchive
from jobledger_server.core.ports import Kept, LogSummary
from jobledger_server.offline import backup, commands
from jobledger_server.offline.backup import BackupError, back_up
from jobledger_server.offline.recover import go_on, recover
from jobledger_server.service import restored
from jobledger_server.stores.sqlite import SqliteStore
from jobledger_server.stores.sqlite.rebuild import EVENTS_AHEAD
from support.clock import ManualClock
from support.executors import SUCCESS, ScriptedExecutor
from support.installations import installation, receipts_of
from support.records import FAILED, RUNNING
from support.services import serving

SAID_SOMETHING = replace(SUCCESS, log=LogSummary(entries=1, sha256="0" * 64))


async def test_it_has_every_receipt_blob_and_log_and_nothing_that_belongs_to_processes(
    data_dir: Path, tmp_path: Path
) -> None:
    for name in ("control/job_x.1", "run"):
        (data_dir / name).mkdir(parents=True)
    for name in ("token", "endpoints.json", "control/job_x.1/lock", "lock"):
        (data_dir / name).write_text("of the original")
    log = next((data_dir / "logs").iterdir()) / "00000001.data"
    log.write_bytes(b"what it said\n")
    os.mkfifo(log.with_name("fifo"))
    log.with_name("link").symlink_to(data_dir / "token")
    others = sorted(path for path in (data_dir / "logs").iterdir() if path != log.parent)
    shutil.rmtree(others[0])
    others[0].symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "private").write_text("of somebody else")
    done = back_up(data_dir, target := tmp_path / "copy")
    assert (done.receipts, done.unfinished, done.blobs, done.missing, done.damaged) == (4, 0, 2, (), ())
    assert sorted(path.name for path in target.iterdir()) == [
        *("backup.json", "blobs", "jobledger.db", "keys", "logs", "receipts")
    ]
    assert sorted(path.name for path in (target / "keys").iterdir()) == ["keys.json", "log.vkey"]
    assert [path.name for path in (target / "logs" / log.parent.name).glob("0*")] == ["00000001.data"]
    assert not [path for path in target.rglob("*") if path.name in ("fifo", "link", "private")]
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    async with SqliteStore(data_dir / "jobledger.db") as original, SqliteStore(target / "jobledger.db") as copy:
        assert await receipts_of(copy) == (receipts := await receipts_of(original))
    keys = load_keys(target / "keys" / "keys.json")
    assert [verify(receipt.envelope, keys=keys).exit_code for receipt in receipts] == [0] * 4
    assert sum(1 for _ in (target / "blobs").glob("*/*")) == 2


async def test_a_cursor_of_the_original_is_too_old_for_the_copy_and_numbers_part_ways(
    data_dir: Path, tmp_path: Path
) -> None:
    """Else a reader that had come further in the original would be given another history from there on."""
    back_up(data_dir, target := tmp_path / "copy")
    restored.begin_new_log(target / "keys")
    for directory in (data_dir, target):
        async with installation(directory) as it:
            job_id = await it.ended(outputs={"result": b"result"})
            [artifact] = await it.store.artifacts(job_id)
            bounds, number = await it.store.event_bounds(), (await it.served.get(job_id)).number
            if directory is data_dir:
                original = (bounds.last, artifact.id, number)
    assert bounds.first == EVENTS_AHEAD + 1 > original[0]
    assert artifact.id > original[1]
    assert number > original[2]


async def test_taken_while_jobs_end_it_holds_together_wherever_it_comes(tmp_path: Path) -> None:
    """What the archive has the database has, and what that names is among the blobs."""
    data_dir = tmp_path / "data"
    async with installation(data_dir) as it:
        for number in range(6):
            await it.ended(outputs={"result": f"output {number}".encode()})
            target = tmp_path / f"copy{number}"
            done = back_up(data_dir, target)
            assert (done.receipts, done.missing) == (number + 1, ())
            archived = sum(len(batch.receipts) for batch in ReceiptArchive(target / "receipts").batches())
            assert archived <= done.receipts


@pytest.mark.parametrize("moment", ["_copy_archive", "_snapshot", "_needed", "inspect"])
async def test_cut_short_it_leaves_nothing_under_its_name(
    data_dir: Path, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backup, moment, cut_short)
    with pytest.raises(KeyboardInterrupt):
        back_up(data_dir, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


async def test_what_can_not_be_good_is_refused(data_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    refused = [
        (tmp_path / "none", target, None, "There is no installation"),
        (data_dir, data_dir / "copy", None, "lies in the installation itself"),
        (data_dir, data_dir, None, "exists already"),
        (data_dir, target, target / "keys", "who has both can sign receipts"),
        (data_dir, target, target, "who has both can sign receipts"),
        (data_dir, tmp_path / "keys" / "copy", tmp_path / "keys", "keep them apart"),
        (data_dir, target, data_dir / "mine", "lies in the installation itself"),
    ]
    for source, place, keys, said in refused:
        with pytest.raises(BackupError, match=said):
            back_up(source, place, keys=keys)
        assert not target.exists()
    back_up(data_dir, target)
    before = sorted(target.rglob("*"))
    with pytest.raises(BackupError, match="exists already, and is left as it is"):
        back_up(data_dir, target)
    assert sorted(target.rglob("*")) == before


async def test_private_keys_go_to_a_place_of_their_own_and_never_the_one_of_the_log(
    data_dir: Path, tmp_path: Path
) -> None:
    done = back_up(data_dir, tmp_path / "copy", keys=tmp_path / "keys")
    assert done.keys == str(tmp_path / "keys")
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["keys.json", "log.vkey", "receipt.key"]
    private = (data_dir / "keys" / "receipt.key").read_bytes()
    assert (tmp_path / "keys" / "receipt.key").read_bytes() == private
    secrets = [private, (data_dir / "keys" / "log.key").read_bytes()]
    for path in (tmp_path / "copy").rglob("*"):
        assert not path.is_file() or not any(secret in path.read_bytes() for secret in secrets), path


async def test_a_blob_that_is_damaged_or_gone_is_named(data_dir: Path, tmp_path: Path) -> None:
    first, second = sorted((data_dir / "blobs").glob("[0-9a-f][0-9a-f]/*"))
    first.write_bytes(b"other")
    second.unlink()
    done = back_up(data_dir, tmp_path / "copy")
    assert (done.damaged, done.missing) == ((first.parent.name + first.name,), (second.parent.name + second.name,))


async def test_restored_it_ends_what_had_not_ended_and_starts_nothing(tmp_path: Path) -> None:
    """The original may have run since what waits in the copy, and run still what runs there."""
    data_dir, target = tmp_path / "data", tmp_path / "copy"
    async with installation(data_dir) as it:
        await it.ended(outputs={"result": b"result"})
        running = [await it.started(), await it.started()]
        waiting = await it.served.create()
        done = back_up(data_dir, target)
        assert done.unfinished == 3
        executor = ScriptedExecutor(clock=ManualClock())
        async with SqliteStore(target / "jobledger.db") as store:
            restored.begin_new_log(target / "keys")
            async with serving(
                target, store=store, clock=ManualClock(), executor=executor, recover=False, schedule=False
            ) as served:
                assert restored.is_restored(target)
                await served.recovery.run(restored=True)
                for job_id in (*running, waiting):
                    job = (await served.get(job_id)).job
                    assert (job.state, job.error_code) == (FAILED, "E_JOB_LOST")
                    receipt = await store.receipt(job_id)
                    assert receipt is not None
                    keys = load_keys(target / "keys" / "keys.json")
                    assert verify(receipt.envelope, keys=keys, job_id=job_id).exit_code == 0
                assert "older than the end of this job" in (await served.get(waiting)).job.error_message
        assert executor.started == []
        assert [(await it.served.get(job_id)).job.state for job_id in running] == [RUNNING] * 2


async def test_a_copy_has_a_log_of_its_own_so_that_no_key_signs_two_histories(data_dir: Path, tmp_path: Path) -> None:
    """Even where the log's key was copied into it by hand."""
    back_up(data_dir, target := tmp_path / "copy")
    shutil.copy(data_dir / "keys" / "log.key", target / "keys" / "log.key")
    before = ReceiptArchive(data_dir / "receipts").told()
    key = restored.begin_new_log(target / "keys")
    async with installation(target) as it:
        await it.ended()
    after = ReceiptArchive(target / "receipts").told()
    assert before is not None
    assert after is not None
    assert after.origin == key.name != before.origin


async def test_a_database_that_is_lost_in_the_copy_comes_back_from_its_archive(data_dir: Path, tmp_path: Path) -> None:
    back_up(data_dir, target := tmp_path / "copy")
    (target / "jobledger.db").unlink()
    assert recover(target).receipts == 4


async def test_an_older_database_can_be_accepted_in_a_log_with_a_new_key(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with installation(data_dir) as it:
        first = await it.ended()
    shutil.copyfile(data_dir / "jobledger.db", tmp_path / "older.db")
    async with installation(data_dir) as it:
        second = await it.ended()
    old_key = (data_dir / "keys" / "log.vkey").read_text()
    shutil.copyfile(tmp_path / "older.db", data_dir / "jobledger.db")
    (data_dir / "token").write_text("jl_of_the_newer_one")
    would = go_on(data_dir, dry_run=True)
    done = go_on(data_dir)
    assert would.given_up == done.given_up == [second]
    assert Path(done.aside["token"]).read_text() == "jl_of_the_newer_one"
    async with SqliteStore(data_dir / "jobledger.db") as store:
        assert (await store.event_bounds()).first == EVENTS_AHEAD + 1
    assert [job.job_id for job in done.unfinished] == [second]
    assert restored.is_restored(data_dir)
    restored.begin_new_log(data_dir / "keys")  # as the next start does
    async with installation(data_dir) as it:
        await it.ended()
        assert [receipt.leaf_index for receipt in await it.receipts()] == [0, 1]
    told = ReceiptArchive(data_dir / "receipts").told()
    assert told is not None
    assert told.origin not in old_key
    assert Path(done.aside["archive"]).exists()
    with closing(sqlite3.connect(data_dir / "jobledger.db")) as connection:
        found = {job_id for (job_id,) in connection.execute("SELECT job_id FROM jobs")}
    assert first in found
    assert second not in found


async def test_a_new_log_keeps_a_token_that_it_knows_and_names_what_was_deleted_since(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with installation(data_dir) as it:
        job_id = await it.ended()
        token = await TokenAdmin(tokens=it.store, clock=ManualClock()).create_first()
    (data_dir / "token").write_text(f"{token}\n")
    shutil.copyfile(data_dir / "jobledger.db", tmp_path / "older.db")
    async with installation(data_dir) as it:
        await it.archiver.note_deleted([job_id])
        await it.store.delete_job(job_id)
    shutil.copyfile(tmp_path / "older.db", data_dir / "jobledger.db")
    done = go_on(data_dir)
    assert (done.given_up, done.undeleted, "token" in done.aside) == ([], [job_id], False)
    assert (data_dir / "token").exists()


async def test_where_the_archive_is_damaged_a_new_log_says_that_not_all_can_be_named(data_dir: Path) -> None:
    damage_archive(data_dir)
    done = go_on(data_dir)
    assert "were changed after they were sealed" in done.unread


def damage_archive(data_dir: Path) -> None:
    """A bit of the second receipt."""
    [file] = ReceiptArchive(data_dir / "receipts").segments()
    lines = file.read_bytes().splitlines(keepends=True)
    body = bytearray(lines[2])
    body[len(body) // 2] ^= 1
    file.write_bytes(b"".join([*lines[:2], bytes(body), *lines[3:]]))


async def test_a_damaged_archive_is_noticed_by_the_backup(data_dir: Path, tmp_path: Path) -> None:
    assert back_up(data_dir, tmp_path / "good").archive == ""
    damage_archive(data_dir)
    done = back_up(data_dir, tmp_path / "copy")
    assert "receipts 1 to 1" in done.archive or "line 3" in done.archive
    assert not done.is_whole
    assert done.receipts == 4, "the database has all of it"
    outcome = CliRunner().invoke(commands.backup, [str(tmp_path / "again"), "--data-dir", str(data_dir)])
    assert (outcome.exit_code, "archive of receipts" in outcome.output) == (1, True)


async def test_an_archive_whose_end_was_cut_off_is_noticed_by_the_backup(data_dir: Path, tmp_path: Path) -> None:
    [file] = ReceiptArchive(data_dir / "receipts").segments()
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-2]))
    assert "cut off" in back_up(data_dir, tmp_path / "copy").archive


async def test_what_is_deleted_while_it_is_taken_is_in_it_with_its_log_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By DeleteJob or by a sweep, before or after the database is copied."""
    data_dir = tmp_path / "data"
    async with installation(data_dir) as it:
        job_ids = [await it.ended(SAID_SOMETHING) for _ in range(4)]
        for job_id in job_ids:
            (data_dir / "logs" / job_id / "00000001.data").write_text(job_id)
        early, late, swept, kept = job_ids
    snapshot = backup._snapshot

    def meanwhile(source: Path, target: Path) -> None:
        delete_by_hand(data_dir, early)
        snapshot(source, target)
        delete_by_hand(data_dir, late)
        shutil.rmtree(data_dir / "logs" / swept)

    with monkeypatch.context() as patched:
        patched.setattr(backup, "_snapshot", meanwhile)
        done = back_up(data_dir, tmp_path / "copy")
    there = sorted(path.name for path in (tmp_path / "copy" / "logs").iterdir())
    assert there == sorted([late, swept, kept])
    for job_id in there:
        assert (tmp_path / "copy" / "logs" / job_id / "00000001.data").read_text() == job_id
    assert done.is_whole
    assert not list((tmp_path / "copy" / "logs").glob(".*"))


async def test_a_log_that_is_gone_though_the_database_has_it_is_named_and_the_exit_code_tells(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "data"
    async with installation(data_dir) as it:
        job_id = await it.ended(SAID_SOMETHING)
        await it.ended(SAID_SOMETHING)
        removed = await it.ended(SAID_SOMETHING)
        await it.store.forget(Kept.LOGS_INFO, [removed], at=1)
    for gone in (job_id, removed):
        shutil.rmtree(data_dir / "logs" / gone)
    outcome = CliRunner().invoke(commands.backup, [str(tmp_path / "copy"), "--data-dir", str(data_dir), "--json"])
    assert outcome.exit_code == 1
    assert json.loads(outcome.output)["missing_logs"] == [job_id]
    assert (tmp_path / "copy" / "jobledger.db").exists()


def delete_by_hand(data_dir: Path, job_id: str) -> None:
    """As another process does."""
    with closing(sqlite3.connect(data_dir / "jobledger.db")) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))
    shutil.rmtree(data_dir / "logs" / job_id)


async def test_a_directory_that_can_not_be_made_is_told_before_anything_is_copied(
    data_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    for target, keys in ((tmp_path / "file" / "in" / "copy", None), (tmp_path / "copy", tmp_path / "file" / "keys")):
        with pytest.raises(BackupError, match="Make it, or name another place"):
            back_up(data_dir, target, keys=keys)
    done = back_up(data_dir, tmp_path / "new" / "copy", keys=tmp_path / "as" / "new" / "keys")
    assert done.keys is not None
    assert Path(done.keys, "receipt.key").exists()
