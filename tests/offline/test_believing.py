"""What was done to an archive is found, and said: nothing of it is believed then."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jobledger import dsse
from jobledger_server.archive.believing import Trusted, believed, read_checkpoint
from jobledger_server.archive.files import ReceiptArchive
from jobledger_server.core.archive import sealed
from jobledger_server.core.frontier import Frontier
from jobledger_server.core.ports.archive import ArchiveError
from jobledger_server.offline.recover import recover
from jobledger_server.service.signing import KeyRing
from support.clock import ManualClock

Lines = list[bytes]


def receipts_in(data_dir: Path, checkpoint: Path | None = None) -> int:
    """How many are believed."""
    trusted = Trusted.read(data_dir / "keys")
    known = None if checkpoint is None else read_checkpoint(checkpoint, trusted)
    return len([*believed(ReceiptArchive(data_dir / "receipts"), trusted, checkpoint=known)])


def lines_of(data_dir: Path) -> tuple[Path, Lines]:
    [file] = ReceiptArchive(data_dir / "receipts").segments()
    return file, file.read_bytes().splitlines(keepends=True)


def flipped(lines: Lines) -> Lines:
    """One bit, in the middle of an envelope."""
    body = bytearray(lines[2])
    body[len(body) // 2] ^= 1
    return [*lines[:2], bytes(body), *lines[3:]]


def flipped_and_hashed_anew(lines: Lines) -> Lines:
    """Whoever does it knows how seals are made, and lacks the key."""
    changed = flipped(lines)
    seal = json.loads(lines[3])
    old, new = (hashlib.sha256(line.rstrip(b"\n")).hexdigest() for line in (lines[2], changed[2]))
    seal["checkpoint"] = seal["checkpoint"].replace(old, new)
    return [*changed[:3], json.dumps(seal).encode() + b"\n", *changed[4:]]


def reordered(lines: Lines) -> Lines:
    return [*lines[2:4], *lines[:2], *lines[4:]]


def without_the_second(lines: Lines) -> Lines:
    return [*lines[:2], *lines[4:]]


def with_one_twice(lines: Lines) -> Lines:
    return [*lines, *lines[2:4]]


def cut_off(lines: Lines) -> Lines:
    return lines[:4]


def cut_in_the_middle_of_a_batch(lines: Lines) -> Lines:
    return [*lines[:4], lines[4][:100]]


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (flipped, r"line 3: the receipts were changed after they were sealed"),
        (flipped_and_hashed_anew, r"(line 3: the receipts can't be read|not signed by the log's key)"),
        (reordered, r"receipts 1 to 1 stand where receipt 0 should: parts of the archive were reordered or taken out"),
        (without_the_second, r"stand where receipt 1 should: parts of the archive were reordered or taken out"),
        (with_one_twice, r"receipts 1 to 1 stand where receipt 4 should"),
        (cut_off, r"ends after 2 receipts, and a checkpoint has 4: its end was cut off"),
        (cut_in_the_middle_of_a_batch, r"ends after 2 receipts, and a checkpoint has 4: its end was cut off"),
    ],
)
async def test_an_archive_that_was_changed_is_refused_and_the_database_stays_as_it_is(
    data_dir: Path, attack: Callable[[Lines], Lines], said: str
) -> None:
    assert receipts_in(data_dir) == 4
    file, lines = lines_of(data_dir)
    file.write_bytes(b"".join(attack(lines)))
    with pytest.raises(ArchiveError, match=said):
        receipts_in(data_dir)
    database = data_dir / "jobledger.db"
    database.write_bytes(b"lost")
    with pytest.raises(ArchiveError, match=said):
        recover(data_dir)
    assert database.read_bytes() == b"lost"
    assert not [*data_dir.glob("*.recovering*"), *data_dir.glob("*.before-*")]


async def test_an_end_that_was_cut_off_with_its_checkpoint_shows_by_one_that_was_kept_elsewhere(
    data_dir: Path, tmp_path: Path
) -> None:
    file, lines = lines_of(data_dir)
    elsewhere = tmp_path / "checkpoint"
    elsewhere.write_bytes((data_dir / "receipts" / "checkpoint").read_bytes())
    file.write_bytes(b"".join(lines[:4]))
    (data_dir / "receipts" / "checkpoint").unlink()
    assert receipts_in(data_dir) == 2
    with pytest.raises(ArchiveError, match="ends after 2 receipts, and a checkpoint has 4"):
        receipts_in(data_dir, elsewhere)
    elsewhere.write_text(elsewhere.read_text().replace("\n4\n", "\n2\n"))
    with pytest.raises(ArchiveError, match="not signed by the log's key"):
        receipts_in(data_dir, elsewhere)


async def test_a_history_that_contradicts_a_checkpoint_is_refused(data_dir: Path, tmp_path: Path) -> None:
    ring = KeyRing.open(data_dir / "keys", ManualClock())
    elsewhere = tmp_path / "checkpoint"
    elsewhere.write_text(json.dumps({"note": ring.checkpoint(3, bytes(32))}))
    with pytest.raises(ArchiveError, match="first 3 receipts are others than those of the checkpoint"):
        receipts_in(data_dir, elsewhere)


@pytest.mark.parametrize("stolen_log_key", [False, True])
async def test_a_receipt_that_was_forged_and_appended_is_refused(data_dir: Path, *, stolen_log_key: bool) -> None:
    """By someone with keys of their own; or with the log's, and without the one that signs receipts."""
    ring = KeyRing.open(data_dir / "keys", ManualClock())
    other = KeyRing.open(data_dir.parent / "other", ManualClock())
    archive = ReceiptArchive(data_dir / "receipts")
    head = archive.open()
    [*_, last] = (job for batch in archive.batches() for job in batch.receipts)
    opened = dsse.decode(last.envelope)
    payload = opened.payload.replace(b"cancelled", b"completed")
    signature = Ed25519PrivateKey.generate().sign(dsse.pae(opened.payload_type, payload))
    forged = dsse.Envelope(opened.payload_type, payload, (dsse.Signature(opened.signatures[0].key_id, signature),))
    job = replace(last, leaf_index=4, envelope=dsse.encode(forged), leaf=hashlib.sha256(payload).digest())
    frontier = Frontier(head.size, head.peaks)
    frontier.append(job.leaf)
    signer = ring if stolen_log_key else other
    batch, note = sealed([job], events=9, frontier=frontier, origin=signer.log_key.name, sign=signer.sign_checkpoint)
    archive.append(batch, first=4, note=note)
    said = "receipt 4 is not signed by any key" if stolen_log_key else "receipts 4 to 4: .* not signed by the log's key"
    with pytest.raises(ArchiveError, match=said):
        receipts_in(data_dir)


async def test_without_keys_nothing_is_believed(data_dir: Path) -> None:
    (data_dir / "keys" / "keys.json").unlink()
    with pytest.raises(ArchiveError, match=r"nothing is believed without them: restore keys\.json"):
        recover(data_dir)
