"""The lock on the data, and the file that says where a server listens."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from jobledger_server import main
from jobledger_server.access.private_files import PrivateFileError
from jobledger_server.config import Settings, resolve, settings_of
from jobledger_server.lifecycle import StartError, announced, given_up, locked, stop_signals
from jobledger_server.wiring.embedded import Embedded
from support.eventually import eventually
from support.root import only_root


def test_a_directory_is_made_for_its_owner_and_locked(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "data"):
        assert stat.S_IMODE((tmp_path / "a" / "data").stat().st_mode) == 0o700
        assert (tmp_path / "a" / "data" / "lock").read_text() == str(os.getpid())


def test_a_second_server_is_told_who_has_the_directory(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(StartError, match=rf"process {os.getpid()}.*--data-dir"), locked(tmp_path):
        pass


def test_a_refused_server_leaves_the_lock_with_its_holder(tmp_path: Path) -> None:
    with locked(tmp_path):
        for _ in range(2):
            with pytest.raises(StartError), locked(tmp_path):
                pass


def test_the_lock_ends_with_the_block_and_with_the_process(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    crash = (
        "import os, pathlib, jobledger_server.lifecycle as l\n"
        f"with l.locked(pathlib.Path({str(tmp_path)!r})): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", crash], check=False).returncode == 9
    with locked(tmp_path):
        pass


def test_a_shorter_number_replaces_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("123456789012345")
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_directory_that_is_open_to_others_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with locked(tmp_path):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@only_root
def test_the_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(PrivateFileError, match="belongs to someone else"), locked(tmp_path):
        pass


def test_a_directory_that_others_could_write_to_is_taken_only_where_it_is_empty(tmp_path: Path) -> None:
    """What is in another one may be theirs, such as a database with a token of theirs; it is left as it is."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty").chmod(0o777)
    with locked(tmp_path / "empty"):
        assert stat.S_IMODE((tmp_path / "empty").stat().st_mode) == 0o700
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for mode in (0o777, 0o770, 0o1777, 0o702):
        (tmp_path / "full").chmod(mode)
        with pytest.raises(PrivateFileError, match="chmod go-w"), locked(tmp_path / "full"):
            pass
        assert stat.S_IMODE((tmp_path / "full").stat().st_mode) == mode
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["x"]


@only_root
def test_a_database_of_somebody_else_is_not_taken_over(tmp_path: Path) -> None:
    """Whoever made it has a token in it."""
    (tmp_path / "jobledger.db").touch()
    os.chown(tmp_path / "jobledger.db", 12345, -1)
    with pytest.raises(PrivateFileError, match="belongs to user 12345"), locked(tmp_path):
        pass
    assert not (tmp_path / "lock").exists()


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(StartError, match="can't be used"), locked(tmp_path / "data"):
        pass


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(PrivateFileError, match="symbolic link"), locked(tmp_path):
        pass
    assert not (tmp_path / "victim").exists()


def test_the_announcement_is_complete_private_and_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    with announced(path, {"pid": 7, "grpc": "127.0.0.1:1"}):
        assert json.loads(path.read_text()) == {"pid": 7, "grpc": "127.0.0.1:1"}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [path]
    assert not list(tmp_path.iterdir())


def test_the_announcement_goes_also_where_the_server_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fault"), announced(tmp_path / "endpoints.json", {}):
        raise ValueError("fault")
    assert not list(tmp_path.iterdir())


def test_what_a_crash_left_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "endpoints.json").write_text("old")
    (tmp_path / "endpoints.new").symlink_to(tmp_path / "victim")
    with announced(tmp_path / "endpoints.json", {"pid": 7}):
        assert json.loads((tmp_path / "endpoints.json").read_text()) == {"pid": 7}
    assert (tmp_path / "victim").read_text() == "kept"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_asks_for_the_end(number: signal.Signals) -> None:
    with stop_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        await eventually(lambda: _now(stop.is_set()))


async def _now(value: bool) -> bool:
    return value


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_ends_a_start_that_is_not_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """What was open by then is closed, and nothing is announced."""
    told: list[str] = []

    @asynccontextmanager
    async def never_ready(_: Settings) -> AsyncIterator[Embedded]:
        async with AsyncExitStack() as stack:
            stack.callback(told.append, "closed")
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
            yield cast("Embedded", None)

    monkeypatch.setattr(main, "embedded", never_ready)
    async with asyncio.timeout(10):
        await main.serve(settings_of(resolve({"data_dir": tmp_path}, {}, None)))
    assert told == ["closed"]
    assert not list(tmp_path.iterdir())


async def test_a_start_that_is_cancelled_by_others_is_cancelled() -> None:
    with pytest.raises(asyncio.CancelledError), given_up(asyncio.Event()):
        raise asyncio.CancelledError
