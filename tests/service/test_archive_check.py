"""Damage to the archive of receipts is found while the server runs, and told."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from jobledger_server.archive.files import ReceiptArchive
from jobledger_server.service.archive_check import ArchiveChecker
from jobledger_server.service.damage import Damage
from jobledger_server.service.engine import Engine
from jobledger_server.service.events import EventHub
from jobledger_server.service.overdue import Overdue
from jobledger_server.service.signing import KeyRing
from jobledger_server.service.storage import Storage
from support.clock import ManualClock
from support.eventually import eventually
from support.installations import Installation, installation


def checker(it: Installation, damage: Damage, **times: float) -> ArchiveChecker:
    return ArchiveChecker(
        directory=it.data_dir / "receipts",
        keys=it.data_dir / "keys",
        clock=ManualClock(),
        damage=damage,
        **{"rest": 0.0, **times},
    )


def engine(it: Installation, damage: Damage) -> Engine:
    storage = Storage(clock=ManualClock(), free=lambda: 2**40, warn_free_bytes=0, min_free_bytes=0)
    return Engine(
        store=it.store,
        clock=ManualClock(),
        events=EventHub(store=it.store, clock=ManualClock()),
        slots=it.served.slots,
        storage=storage,
        damage=damage,
        keys=KeyRing.open(it.data_dir / "keys", ManualClock()),
        overdue=Overdue(),
        isolation="none",
    )


def flip(data_dir: Path) -> None:
    """A bit in the middle of the first receipt."""
    [file] = ReceiptArchive(data_dir / "receipts").segments()
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes(bytes(data))


def cut_off(data_dir: Path) -> None:
    [file] = ReceiptArchive(data_dir / "receipts").segments()
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-2]))


def take_away(data_dir: Path) -> None:
    [file] = ReceiptArchive(data_dir / "receipts").segments()
    file.rename(data_dir / "elsewhere")


def forge_a_deletion(data_dir: Path) -> None:
    (data_dir / "receipts" / "deletions.jsonl").write_text(
        '{"note": "x/deletions\\njob_x\\n\\nnobody signed this\\n"}\n'
    )


@pytest.mark.parametrize("harm", [flip, cut_off, take_away, forge_a_deletion])
async def test_what_was_done_to_the_archive_is_told_until_it_is_well_again(
    tmp_path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage = Damage()
    async with installation(tmp_path) as it:
        for _ in range(2):
            await it.ended()
            await it.archiver.caught_up()
        await it.archiver.note_deleted(["job_y"])
        check = checker(it, damage).check
        await check()
        assert (damage.archive, damage.archive_checked_at is None) == ("", False)
        before = {path: path.read_bytes() for path in (tmp_path / "receipts").iterdir()}
        harm(tmp_path)
        await check()
        assert damage.archive
        status = await engine(it, damage).status()
        assert status.health == f"the archive of receipts is damaged: {status.archive_damage}"
        [told] = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "move `receipts/` aside" in told.getMessage()
        for path, data in before.items():
            path.write_bytes(data)
        await check()
        assert damage.archive == ""
        assert (await engine(it, damage).status()).health == "ok"


async def test_it_goes_on_by_itself_while_receipts_are_archived(tmp_path: Path) -> None:
    """And takes what is just being written for no damage."""
    damage = Damage()
    async with installation(tmp_path) as it, checker(it, damage, first=0, interval=0):
        for _ in range(10):
            await it.ended()
            await it.archiver.caught_up()
            assert damage.archive == ""
        flip(tmp_path)
        await eventually(lambda: asyncio.sleep(0, damage.archive), until=bool)
