"""Keys that are rotated, revoked or lost: what still signs, what still verifies, and what stops the start."""

import stat
from pathlib import Path

import pytest
from jobledger.receipts import load_keys, load_log_key, verify
from jobledger.v1.receipt_service_pb2 import SigningKey
from jobledger_server.core.ports import StoredReceipt
from jobledger_server.core.receipts import seal
from jobledger_server.core.times import micros
from jobledger_server.service import key_files
from jobledger_server.service.key_files import KeyRingError
from jobledger_server.service.signing import KeyRing, open_ring
from jobledger_server.stores.sqlite import SqliteStore
from receipt_samples import finished_record, receipt_of
from support.clock import ManualClock
from support.executors import ScriptedExecutor
from support.records import COMPLETED, RUNNING
from support.services import serving

# After the end of the sample job.
LATER = 2_000_000_000_000_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def sealed(ring: KeyRing) -> StoredReceipt:
    return seal(receipt_of(finished_record()), ring)


def refused_by(directory: Path, receipt: StoredReceipt) -> set[str]:
    report = verify(receipt.envelope, keys=load_keys(directory / "keys.json"))
    return {check.name for check in report.checks if check.status == "failed"}


def test_a_rotated_key_signs_no_more_and_its_receipts_stay_valid(directory: Path) -> None:
    clock = ManualClock(LATER)
    old = KeyRing.open(directory, clock)
    before, private = sealed(old), (directory / "receipt.key").read_bytes()
    clock.advance(5)
    newest, oldest = key_files.rotate(directory, clock)
    ring = KeyRing.open(directory, clock)
    assert list(ring.keys()) == [newest, oldest]
    assert (ring.sign(b"")[0], old.sign(b"")[0]) == (newest.key_id, oldest.key_id)
    assert micros(oldest.valid_until) == micros(newest.valid_from) == clock.now()
    assert refused_by(directory, before) == refused_by(directory, sealed(ring)) == set()
    assert stat.S_IMODE((directory / "receipt.key").stat().st_mode) == 0o600
    assert private not in [path.read_bytes() for path in directory.iterdir()]
    assert ring.log_key == old.log_key


def test_a_rotation_that_was_cut_short_is_completed_by_the_next_start(directory: Path) -> None:
    clock = ManualClock(LATER)
    before = sealed(KeyRing.open(directory, clock))
    key_files.make(directory / "receipt.key")
    ring = KeyRing.open(directory, clock)
    assert len(ring.keys()) == 2
    assert refused_by(directory, before) == refused_by(directory, sealed(ring)) == set()


def test_the_current_key_is_replaced_when_it_is_revoked(directory: Path) -> None:
    clock = ManualClock(LATER)
    before = sealed(KeyRing.open(directory, clock))
    (current,) = key_files.read_keys(directory / "keys.json")
    clock.advance(5)
    newest, revoked = key_files.revoke(directory, current.key_id[:12], clock)
    assert (revoked.key_id, micros(revoked.revoked_at)) == (current.key_id, clock.now())
    assert refused_by(directory, before) == {"key_not_revoked"}
    after = KeyRing.open(directory, clock)
    assert after.sign(b"")[0] == newest.key_id
    assert refused_by(directory, sealed(after)) == set()


def test_revoking_an_old_key_leaves_the_current_one(directory: Path) -> None:
    clock = ManualClock(LATER)
    before = sealed(KeyRing.open(directory, clock))
    current, old = key_files.rotate(directory, clock)
    key_files.revoke(directory, old.key_id, clock)
    ring = KeyRing.open(directory, clock)
    assert ring.sign(b"")[0] == current.key_id
    assert refused_by(directory, before) == {"key_not_revoked"}
    assert refused_by(directory, sealed(ring)) == set()


def test_a_revocation_that_was_cut_short_lets_the_key_sign_no_more(directory: Path) -> None:
    clock = ManualClock(LATER)
    KeyRing.open(directory, clock)
    (key,) = key_files.read_keys(directory / "keys.json")
    revoked = SigningKey()
    revoked.CopyFrom(key)
    revoked.revoked_at.FromMicroseconds(clock.now())
    key_files.write_keys(directory / "keys.json", [revoked])
    with pytest.raises(KeyRingError, match="is revoked"):
        KeyRing.open(directory, clock)


@pytest.mark.parametrize(("wanted", "reason"), [("", "no key"), ("xyz", "no key")])
def test_a_key_that_is_not_there_cannot_be_revoked(directory: Path, wanted: str, reason: str) -> None:
    clock = ManualClock(LATER)
    KeyRing.open(directory, clock)
    before = (directory / "keys.json").read_bytes()
    with pytest.raises(KeyRingError, match=reason):
        key_files.revoke(directory, wanted, clock)
    assert (directory / "keys.json").read_bytes() == before


def test_a_key_is_revoked_once(directory: Path) -> None:
    clock = ManualClock(LATER)
    KeyRing.open(directory, clock)
    _, old = key_files.rotate(directory, clock)
    key_files.revoke(directory, old.key_id, clock)
    with pytest.raises(KeyRingError, match="revoked already"):
        key_files.revoke(directory, old.key_id, clock)


def test_without_a_receipt_key_there_is_nothing_to_rotate(directory: Path) -> None:
    with pytest.raises(KeyRingError, match="`signer` and `signer_key`"):
        key_files.rotate(directory, ManualClock())


# --- the log's key --------------------------------------------------------------------------------------------------


def test_a_log_whose_key_is_gone_gets_no_other_in_silence(directory: Path) -> None:
    clock = ManualClock(LATER)
    KeyRing.open(directory, clock)
    (directory / "log.key").unlink()
    with pytest.raises(KeyRingError, match=r"log\.key is gone.*restore it.*`jobledger keys new-log`"):
        KeyRing.open(directory, clock)
    assert not (directory / "log.key").exists()


def test_a_log_key_that_belongs_to_another_installation_is_refused(directory: Path, tmp_path: Path) -> None:
    clock = ManualClock(LATER)
    KeyRing.open(directory, clock)
    KeyRing.open(tmp_path / "other", clock)
    (tmp_path / "other" / "log.key").replace(directory / "log.key")
    with pytest.raises(KeyRingError, match=r"is not the key whose public half is in .*log\.vkey"):
        KeyRing.open(directory, clock)


async def test_keys_that_are_all_gone_are_missed_where_there_are_receipts(
    tmp_path: Path, directory: Path, store: SqliteStore, executor: ScriptedExecutor
) -> None:
    """As after a restored backup, which has no keys."""
    clock = ManualClock(LATER)
    await open_ring(directory, clock=clock, store=store, external=None)
    for path in directory.iterdir():
        path.unlink()
    # None yet: whoever has no receipts has no log that others could know.
    ring = await open_ring(directory, clock=clock, store=store, external=None)
    async with serving(tmp_path, store=store, clock=clock, executor=executor, keys=ring) as served:
        job_id = await served.create()
        await served.reaches(job_id, RUNNING)
        executor.end(job_id, 1)
        await served.reaches(job_id, COMPLETED)
    for path in directory.iterdir():
        path.unlink()
    with pytest.raises(KeyRingError, match=r"log\.key is gone"):
        await open_ring(directory, clock=clock, store=store, external=None)
    begun = key_files.new_log(directory)
    again = await open_ring(directory, clock=clock, store=store, external=None)
    assert again.log_key == begun != ring.log_key


def test_a_log_that_has_its_key_is_not_begun_anew(directory: Path) -> None:
    ring = KeyRing.open(directory, ManualClock())
    with pytest.raises(KeyRingError, match="needs no new key"):
        key_files.new_log(directory)
    assert KeyRing.open(directory, ManualClock()).log_key == ring.log_key


def test_the_file_of_keys_has_the_logs_key_too_and_follows_it(directory: Path) -> None:
    """So a stranger needs one file, or one address."""
    ring = KeyRing.open(directory, ManualClock())
    assert load_log_key(directory / "keys.json") == str(ring.log_key)
    key_files.rotate(directory, ManualClock())
    assert load_log_key(directory / "keys.json") == str(ring.log_key)
    (directory / "log.key").unlink()
    begun = key_files.new_log(directory)
    assert load_log_key(directory / "keys.json") == str(begun) != str(ring.log_key)
