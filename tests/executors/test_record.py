"""What a supervisor says in its record: whole, or not at all."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger_server.executors.local import record
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.record import BYTES, START_BYTES, Record, end_of, start_of

IDENTITY = {"shim": 7, "pid": 8, "started_at": 5, "pid_started": 6, "boot_id": "b"}
WORD: dict[str, Any] = {"reason": "exited", "exit_code": 3, "message": "m" * 200}


def written(path: Path, word: dict[str, Any]) -> bytes:
    made = Record(path, None)
    made.started(IDENTITY)
    assert made.ended(word)
    return path.read_bytes()


def test_what_is_said_of_start_and_end_is_read_again(tmp_path: Path) -> None:
    control = ControlDir(tmp_path)
    assert control.read_started() is None
    assert control.read_end() == {}
    made = Record(control.started, None)
    assert control.read_started() == {}
    made.started(IDENTITY)
    assert control.read_started() == IDENTITY
    assert control.read_end() == {}
    assert made.ended(WORD)
    assert control.read_started() == IDENTITY
    assert control.read_end() == WORD


def test_an_attempt_is_claimed_once(tmp_path: Path) -> None:
    Record(tmp_path / "started.json", None)
    with pytest.raises(FileExistsError):
        Record(tmp_path / "started.json", None)


def test_an_end_that_is_not_whole_counts_as_not_said(tmp_path: Path) -> None:
    """As a crash of the machine may leave it: any first part of it on the disk, and any byte of it another one."""
    whole = written(tmp_path / "started.json", WORD)
    length = len(whole.rstrip())
    assert end_of(whole) == WORD
    for end in range(START_BYTES, length):
        assert end_of(whole[:end].ljust(BYTES)) == {}
        assert end_of(whole[:end].ljust(BYTES, b"\0")) == {}
        assert end_of(whole[:end] + bytes([whole[end] ^ 1]) + whole[end + 1 :]) == {}


@given(st.binary(max_size=BYTES + 10))
def test_whatever_is_in_its_place_makes_no_trouble(content: bytes) -> None:
    assert isinstance(start_of(content), dict)
    assert isinstance(end_of(content), dict)


def test_what_somebody_wrote_there_before_does_not_spoil_the_end(tmp_path: Path) -> None:
    path = tmp_path / "started.json"
    made = Record(path, None)
    path.write_bytes(b"x" * BYTES)
    made.started(IDENTITY)
    assert made.ended(WORD)
    assert (start_of(path.read_bytes()), end_of(path.read_bytes())) == (IDENTITY, WORD)


@pytest.mark.parametrize("trouble", ["long", "removed", "replaced", "cut"])
def test_an_end_for_which_there_is_no_place_is_told_of(tmp_path: Path, trouble: str) -> None:
    path = tmp_path / "started.json"
    made = Record(path, None)
    if trouble in {"removed", "replaced"}:
        path.unlink()
    if trouble == "replaced":
        path.write_bytes(b" " * BYTES)
    if trouble == "cut":
        os.truncate(path, 0)
    assert not made.ended({**WORD, "message": "m" * (BYTES if trouble == "long" else 1)})


def test_nothing_is_claimed_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(record, "sync_path", full)
    with pytest.raises(OSError, match="No space"):
        Record(tmp_path / "started.json", None)
    assert not list(tmp_path.iterdir())
