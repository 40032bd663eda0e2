"""The archive's files: what was added is there, whatever came in between, and what is missing shows."""

import hashlib
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jobledger import dsse
from jobledger.tlog import NoteKey, sign_checkpoint
from jobledger_server.archive.files import ReceiptArchive
from jobledger_server.core.archive import sealed
from jobledger_server.core.frontier import Frontier
from jobledger_server.core.ports.archive import ArchiveError, SealedJob
from support.records import COMPLETED, a_record, an_artifact

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEY = NoteKey(name="example.org/log", public_key=SIGNER.public_key().public_bytes_raw())


def a_job(index: int) -> SealedJob:
    payload = f"receipt {index}".encode()
    envelope = dsse.encode(dsse.Envelope("text/plain", payload, (dsse.Signature("key", b"signature"),)))
    record = a_record(COMPLETED, labels={"at": str(index)})
    record.job.spec.env["SECRET"] = "not for the archive"
    record.job.spec.stdin = "nor this"
    return SealedJob(
        leaf_index=index,
        envelope=envelope,
        leaf=hashlib.sha256(payload).digest(),
        workspace_id="default",
        job=record.job,
        number=index + 1,
        artifacts=[an_artifact(index)],
    )


class Writer:
    """Appends batches, as a server does."""

    def __init__(self, archive: ReceiptArchive) -> None:
        self.archive = archive
        head = archive.open()
        self.frontier = Frontier(head.size, head.peaks)

    def add(self, count: int) -> list[SealedJob]:
        jobs = [a_job(len(self.frontier) + number) for number in range(count)]
        for job in jobs:
            self.frontier.append(job.leaf)
        batch, note = sealed(
            jobs,
            events=7,
            frontier=self.frontier,
            origin=KEY.name,
            sign=lambda it: sign_checkpoint(it, KEY, SIGNER.sign),
        )
        self.archive.append(batch, first=jobs[0].leaf_index, note=note)
        return jobs


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "receipts"


def sizes(directory: Path) -> list[int]:
    return [len(batch.receipts) for batch in ReceiptArchive(directory).batches()]


def test_what_was_added_reads_back_in_order_over_as_many_files_as_it_takes(directory: Path) -> None:
    writer = Writer(ReceiptArchive(directory, large=2000))
    added = [job for count in (1, 3, 2, 5) for job in writer.add(count)]
    assert len(ReceiptArchive(directory).segments()) > 1
    read = [job for batch in ReceiptArchive(directory).batches() for job in batch.receipts]
    assert [(job.leaf_index, job.envelope, job.leaf, job.number) for job in read] == [
        (job.leaf_index, job.envelope, job.leaf, job.number) for job in added
    ]
    assert [job.artifacts for job in read] == [job.artifacts for job in added]
    head = ReceiptArchive(directory).open()
    assert (head.size, head.last_leaf, list(head.peaks)) == (11, added[-1].leaf, list(writer.frontier.peaks))


def test_what_a_job_was_given_in_private_is_not_in_it(directory: Path) -> None:
    Writer(ReceiptArchive(directory)).add(1)
    [batch] = ReceiptArchive(directory).batches()
    [job] = batch.receipts
    assert job.job is not None
    assert job.job.labels == {"at": "0"}
    assert not job.job.spec.env
    assert not job.job.spec.stdin
    assert all(file.stat().st_mode & 0o077 == 0 for file in ReceiptArchive(directory).segments())


def test_a_batch_that_was_cut_short_anywhere_goes_and_the_next_one_takes_its_place(directory: Path) -> None:
    """A crash may come after each byte."""
    Writer(ReceiptArchive(directory)).add(2)
    [file] = ReceiptArchive(directory).segments()
    before, told = file.read_bytes(), (directory / "checkpoint").read_bytes()
    Writer(ReceiptArchive(directory)).add(1)
    after = file.read_bytes()
    for end in [*range(len(before), len(after), 97), len(after) - 1]:
        file.write_bytes(after[:end])
        (directory / "checkpoint").write_bytes(told)
        assert sizes(directory) == [2], end
        Writer(ReceiptArchive(directory)).add(4)
        assert sizes(directory) == [2, 4], end


def test_a_file_in_which_nothing_came_to_its_end_is_begun_anew(directory: Path) -> None:
    writer = Writer(ReceiptArchive(directory, large=1))
    writer.add(1)
    (directory / f"{1:012}.jsonl").write_bytes(b'{"first":1,')
    writer = Writer(ReceiptArchive(directory, large=1))
    writer.add(3)
    assert sizes(directory) == [1, 3]


def test_an_end_that_was_cut_off_shows_by_the_checkpoint_beside(directory: Path) -> None:
    writer = Writer(ReceiptArchive(directory))
    writer.add(2)
    [file] = ReceiptArchive(directory).segments()
    before = file.read_bytes()
    writer.add(1)
    file.write_bytes(before)
    with pytest.raises(ArchiveError, match=r"ends after 2 receipts, and its checkpoint has 3.*jobledger recover"):
        ReceiptArchive(directory).open()
    file.unlink()
    with pytest.raises(ArchiveError, match="ends after 0 receipts"):
        ReceiptArchive(directory).open()


def test_an_empty_checkpoint_which_a_crash_of_the_machine_may_leave_is_none(directory: Path) -> None:
    Writer(ReceiptArchive(directory)).add(2)
    (directory / "checkpoint").write_bytes(b"")
    assert ReceiptArchive(directory).open().size == 2


@pytest.mark.parametrize(("place", "said"), [(100, "other|changed"), (-40, "seal|frontier")])
def test_a_changed_byte_at_the_end_keeps_it_from_being_gone_on_with(directory: Path, place: int, said: str) -> None:
    Writer(ReceiptArchive(directory)).add(2)
    [file] = ReceiptArchive(directory).segments()
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArchiveError, match=f"the end of .* is damaged: .*({said})"):
        ReceiptArchive(directory).open()


def test_a_write_that_fails_leaves_it_as_it_was(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(ReceiptArchive(directory))
    writer.add(2)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="no room"):
            writer.add(1)
    assert ReceiptArchive(directory).open().size in (2, 3)
    writer = Writer(writer.archive)
    writer.add(4 - len(writer.frontier))
    assert sum(sizes(directory)) == 4


def fails(_: int) -> None:
    raise OSError("no room")


def test_what_is_retired_stays_beside_and_a_new_one_begins(directory: Path) -> None:
    writer = Writer(ReceiptArchive(directory))
    writer.add(3)
    aside = writer.archive.retire()
    assert sizes(Path(aside)) == [3]
    assert ReceiptArchive(directory).open().size == 0
