"""The archive keeps level with the database, no checkpoint goes beyond it, and an older database is noticed."""

import asyncio
import shutil
from pathlib import Path

import pytest
from jobledger.tlog import NoteKey, open_checkpoint
from jobledger_server.archive.files import ReceiptArchive
from jobledger_server.core.merkle import Tree
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import StoreUnavailableError
from jobledger_server.core.ports.archive import ArchiveError
from jobledger_server.service.archiving import RolledBackError
from jobledger_server.service.receipts import Receipts
from jobledger_server.service.restored import begin_new_log
from jobledger_server.service.signing import KeyRing
from support.clock import ManualClock
from support.eventually import eventually
from support.installations import Installation, installation

ANYBODY = Principal(token_id="token", scopes=frozenset({"jobs:read"}))


def archived(data_dir: Path) -> list[bytes]:
    return [job.envelope for batch in ReceiptArchive(data_dir / "receipts").batches() for job in batch.receipts]


def a_copy(data_dir: Path, name: str) -> Path:
    """Of the database, which nobody has open."""
    copy = data_dir / name
    shutil.copyfile(data_dir / "jobledger.db", copy)
    return copy


async def test_receipts_come_into_the_archive_by_themselves_in_the_order_of_the_log(tmp_path: Path) -> None:
    async with installation(tmp_path) as it:
        await asyncio.gather(*(it.ended() for _ in range(5)))
        expected = [receipt.envelope for receipt in await it.receipts()]

        async def now() -> list[bytes]:
            return archived(tmp_path)

        await eventually(now, until=lambda found: found == expected)


async def test_an_installation_from_before_the_archive_gets_one_at_its_start(tmp_path: Path) -> None:
    async with installation(tmp_path) as it:
        for _ in range(3):
            await it.ended()
    shutil.rmtree(tmp_path / "receipts")
    async with installation(tmp_path) as it:
        await it.archiver.caught_up()
        assert archived(tmp_path) == [receipt.envelope for receipt in await it.receipts()]


async def test_a_checkpoint_covers_what_is_archived_and_is_on_the_disk_before_it_is_given_out(tmp_path: Path) -> None:
    async with installation(tmp_path) as it:
        receipts = receipts_of(it)
        job_ids = [await it.ended() for _ in range(4)]
        checkpoint = await receipts.checkpoint()
        stored = await it.receipts()
        assert archived(tmp_path) == [receipt.envelope for receipt in stored]
        told = ReceiptArchive(tmp_path / "receipts").told()
        key = NoteKey.parse((tmp_path / "keys" / "log.vkey").read_text())
        given = open_checkpoint(checkpoint.note, key)
        assert told is not None
        assert (told.size, told.root) == (given.size, given.root) == (4, Tree(it.leaf for it in stored).root())
        proof = await receipts.inclusion(job_ids[2], ANYBODY)
        assert proof.checkpoint.tree_size == 4


async def test_while_the_archive_can_not_be_written_jobs_end_and_no_checkpoint_is_given_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with installation(tmp_path) as it:
        receipts = receipts_of(it)
        with monkeypatch.context() as patched:
            patched.setattr(ReceiptArchive, "append", full)
            await it.ended()
            with pytest.raises(StoreUnavailableError, match="archive of receipts can't be written: no room"):
                await receipts.checkpoint()
        assert archived(tmp_path) == []
        assert (await receipts.checkpoint()).tree_size == 1


def full(*_: object, **__: object) -> None:
    raise OSError("no room")


def receipts_of(it: Installation) -> Receipts:
    keys = KeyRing.open(it.data_dir / "keys", ManualClock())
    return Receipts(store=it.store, keys=keys, archiver=it.archiver)


async def test_a_lost_database_is_noticed(tmp_path: Path) -> None:
    async with installation(tmp_path) as it:
        await it.ended()
        await it.ended()
    for file in tmp_path.glob("jobledger.db*"):
        file.unlink()
    with pytest.raises(RolledBackError, match=r"has 0 receipts, and the archive's checkpoint has 2.*jobledger recover"):
        async with installation(tmp_path):
            pass


async def test_an_older_database_is_noticed_also_where_it_would_have_gone_on(tmp_path: Path) -> None:
    async with installation(tmp_path) as it:
        await it.ended()
    older = a_copy(tmp_path, "older.db")
    async with installation(tmp_path) as it:
        await it.ended()
    older.replace(tmp_path / "jobledger.db")
    with pytest.raises(RolledBackError, match="has 1 receipts, and the archive's checkpoint has 2"):
        async with installation(tmp_path):
            pass
    hidden = (tmp_path / "receipts").rename(tmp_path / "hidden")
    async with installation(tmp_path) as it:
        await it.ended()
    shutil.rmtree(tmp_path / "receipts")
    hidden.rename(tmp_path / "receipts")
    with pytest.raises(RolledBackError, match="Receipt 1 of the database is another one"):
        async with installation(tmp_path):
            pass


async def test_with_a_new_key_the_log_has_an_archive_of_its_own_from_its_beginning(tmp_path: Path) -> None:
    async with installation(tmp_path) as it:
        await it.ended()
    before = ReceiptArchive(tmp_path / "receipts").told()
    key = begin_new_log(tmp_path / "keys")
    async with installation(tmp_path) as it:
        await it.ended()
    after = ReceiptArchive(tmp_path / "receipts").told()
    assert before is not None
    assert after is not None
    assert (after.origin, after.size) == (key.name, 2)
    assert before.origin != key.name
    assert len(archived(tmp_path)) == 2
    [aside] = tmp_path.glob("receipts.before-*")
    assert [len(batch.receipts) for batch in ReceiptArchive(aside).batches()] == [1]


async def test_an_end_that_the_own_key_did_not_sign_is_not_gone_on_with(tmp_path: Path) -> None:
    async with installation(tmp_path) as it:
        await it.ended()
    [file] = ReceiptArchive(tmp_path / "receipts").segments()
    lines = file.read_text().splitlines()
    at = lines[1].rindex('\\n"') - 12
    lines[1] = lines[1][:at] + ("A" if lines[1][at] != "A" else "B") + lines[1][at + 1 :]
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(ArchiveError, match="is not this log's"):
        async with installation(tmp_path):
            pass
