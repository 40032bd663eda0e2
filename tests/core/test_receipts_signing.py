"""The installation's keys: made once, kept from others, and refused where others may have had them."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from jobledger.receipts import load_keys, verify
from jobledger.tlog import NoteKey, open_checkpoint
from jobledger_server.core.merkle import Tree
from jobledger_server.core.receipts import seal
from jobledger_server.core.times import micros
from jobledger_server.service.signing import KeyRing, KeyRingError
from receipt_samples import finished_record, receipt_of

# After the end of the sample job.
LATER = 2_000_000_000_000_000


class StoppedClock:
    """Stands still until it is told the time."""

    def __init__(self) -> None:
        self.at = 1_000_000

    def now(self) -> int:
        return self.at

    def monotonic(self) -> float:
        return self.at / 1e6

    def random(self, count: int) -> bytes:
        return bytes(count)


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def revoke(directory: Path) -> None:
    path = directory / "keys.json"
    path.write_text(path.read_text().replace('"valid_from"', '"revoked_at": "2026-02-01T00:00:00Z", "valid_from"', 1))


def test_the_first_start_makes_keys_that_only_the_owner_can_read(directory: Path, clock: StoppedClock) -> None:
    KeyRing.open(directory, clock)
    assert mode(directory) == 0o700
    assert mode(directory / "receipt.key") == mode(directory / "log.key") == 0o600
    assert (directory / "receipt.key").read_bytes() != (directory / "log.key").read_bytes()


def test_a_permissive_umask_does_not_open_the_keys(directory: Path, clock: StoppedClock) -> None:
    before = os.umask(0)
    try:
        KeyRing.open(directory, clock)
    finally:
        os.umask(before)
    assert (mode(directory), mode(directory / "receipt.key")) == (0o700, 0o600)


def test_the_next_start_finds_the_same_keys(directory: Path, clock: StoppedClock) -> None:
    first = KeyRing.open(directory, clock)
    clock.at += 5_000_000
    second = KeyRing.open(directory, clock)
    assert second.sign(b"x") == first.sign(b"x")
    assert second.log_key == first.log_key
    assert list(second.keys()) == list(first.keys())
    assert micros(second.keys()[0].valid_from) == 1_000_000


def test_a_receipt_is_valid_by_the_keys_file_alone(directory: Path, clock: StoppedClock) -> None:
    sealed = seal(receipt_of(finished_record()), KeyRing.open(directory, clock))
    assert verify(sealed.envelope, keys=load_keys(directory / "keys.json")).exit_code == 0


def test_checkpoints_are_signed_with_the_logs_own_key(directory: Path, clock: StoppedClock) -> None:
    ring = KeyRing.open(directory, clock)
    tree = Tree([b"one", b"two"])
    published = NoteKey.parse((directory / "log.vkey").read_text())
    checkpoint = open_checkpoint(ring.checkpoint(len(tree), tree.root()), published)
    assert (checkpoint.size, checkpoint.root) == (2, tree.root())
    assert checkpoint.origin.startswith("jobledger.dev/log/")


def test_a_key_that_was_moved_away_is_replaced_and_its_receipts_stay_valid(
    directory: Path, clock: StoppedClock
) -> None:
    old = KeyRing.open(directory, clock)
    sealed = seal(receipt_of(finished_record()), old)
    (directory / "receipt.key").rename(directory / "receipt.key.old")
    clock.at = LATER
    ring = KeyRing.open(directory, clock)
    newest, oldest = ring.keys()
    assert newest.key_id == ring.sign(b"")[0] != oldest.key_id == old.sign(b"")[0]
    assert not newest.HasField("valid_until")
    assert micros(oldest.valid_until) == LATER
    assert ring.log_key == old.log_key
    assert verify(sealed.envelope, keys=load_keys(directory / "keys.json")).exit_code == 0


def test_a_revoked_key_signs_no_more_and_the_receipts_of_it_are_refused(directory: Path, clock: StoppedClock) -> None:
    sealed = seal(receipt_of(finished_record()), KeyRing.open(directory, clock))
    revoke(directory)
    with pytest.raises(KeyRingError, match=r"receipt\.key is revoked .* move it away"):
        KeyRing.open(directory, clock)
    (directory / "receipt.key").unlink()
    KeyRing.open(directory, clock)
    assert verify(sealed.envelope, keys=load_keys(directory / "keys.json")).exit_code == 1


def test_lost_public_keys_are_written_again(directory: Path, clock: StoppedClock) -> None:
    ring = KeyRing.open(directory, clock)
    (directory / "keys.json").unlink()
    (directory / ".keys.json.partial").write_text("left by a crash")
    assert KeyRing.open(directory, clock).sign(b"x") == ring.sign(b"x")
    assert list(load_keys(directory / "keys.json")) == [ring.sign(b"x")[0]]


def make_link(key: Path) -> None:
    key.rename(key.with_name("elsewhere"))
    key.symlink_to(key.with_name("elsewhere"))


def make_hard_link(key: Path) -> None:
    key.with_name("elsewhere").hardlink_to(key)


def make_readable(key: Path) -> None:
    key.chmod(0o640)


def open_the_directory(key: Path) -> None:
    key.parent.chmod(0o755)


def make_fifo(key: Path) -> None:
    key.unlink()
    os.mkfifo(key, 0o600)


def empty(key: Path) -> None:
    key.write_bytes(b"")


def put_another_kind_of_key(key: Path) -> None:
    other = generate_private_key(SECP256R1())
    key.write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def spoil_public_keys(key: Path) -> None:
    key.with_name("keys.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (make_link, r"receipt\.key is a symbolic link: put the file itself there"),
        (make_hard_link, r"receipt\.key has 2 names .* copy it"),
        (make_readable, r"receipt\.key is open to other users: .* chmod 600 .*receipt\.key"),
        (open_the_directory, r"keys is open to other users: .* chmod 700 .*keys"),
        (make_fifo, r"receipt\.key is not a regular file: move it away"),
        (empty, r"receipt\.key is no private key in PEM: restore it"),
        (put_another_kind_of_key, r"receipt\.key is not an Ed25519 key: restore it"),
        (spoil_public_keys, r"keys\.json can't be read: mend it or restore it"),
    ],
)
def test_keys_that_cannot_be_trusted_stop_the_start(
    directory: Path, clock: StoppedClock, spoil: Callable[[Path], None], message: str
) -> None:
    KeyRing.open(directory, clock)
    spoil(directory / "receipt.key")
    with pytest.raises(KeyRingError, match=message):
        KeyRing.open(directory, clock)


def test_keys_of_another_user_stop_the_start(
    directory: Path, clock: StoppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    KeyRing.open(directory, clock)
    monkeypatch.setattr(os, "geteuid", lambda: directory.stat().st_uid + 1)
    with pytest.raises(KeyRingError, match="belongs to user"):
        KeyRing.open(directory, clock)


def test_a_link_in_place_of_the_directory_stops_the_start(directory: Path, clock: StoppedClock) -> None:
    directory.parent.mkdir()
    elsewhere = directory.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    directory.symlink_to(elsewhere)
    with pytest.raises(KeyRingError, match="is not a directory"):
        KeyRing.open(directory, clock)
