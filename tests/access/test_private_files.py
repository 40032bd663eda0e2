"""Files that only this user may read, and what is refused in their place."""

import os
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from jobledger_server.access.admin import TokenAdmin
from jobledger_server.access.private_files import (
    PrivateFileError,
    create_private,
    open_directory,
    read_private,
    replace_file,
)
from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.access.token_file import provide_token_file
from jobledger_server.access.tokens import Authenticator
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.root import only_root

NOW = 1_800_000_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secret"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_was_created_can_be_read_by_its_owner_alone(path: Path) -> None:
    os.umask(os.umask(0o022))
    create_private(path, b"data")
    assert read_private(path) == b"data"
    assert mode_of(path) == 0o600


def test_where_there_is_no_file_there_is_nothing_to_read(path: Path) -> None:
    assert read_private(path) is None


def test_nothing_is_created_over_another_file(path: Path) -> None:
    create_private(path, b"first")
    with pytest.raises(PrivateFileError, match="exists already"):
        create_private(path, b"second")
    assert read_private(path) == b"first"


def test_nothing_is_created_through_a_link(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PrivateFileError):
        create_private(path, b"data")
    assert not (tmp_path / "elsewhere").exists()


def test_a_link_is_not_read(path: Path, tmp_path: Path) -> None:
    create_private(tmp_path / "real", b"data")
    path.symlink_to(tmp_path / "real")
    with pytest.raises(PrivateFileError, match="symbolic link"):
        read_private(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o601, 0o666])
def test_a_file_that_is_open_to_others_is_not_read(path: Path, mode: int) -> None:
    create_private(path, b"data")
    path.chmod(mode)
    with pytest.raises(PrivateFileError, match="chmod 600"):
        read_private(path)


def test_a_file_with_another_name_elsewhere_is_not_read(path: Path, tmp_path: Path) -> None:
    create_private(path, b"data")
    os.link(path, tmp_path / "other")
    with pytest.raises(PrivateFileError, match="hard links"):
        read_private(path)


@only_root
def test_a_file_of_somebody_else_is_not_read(path: Path) -> None:
    create_private(path, b"data")
    os.chown(path, 12345, -1)
    with pytest.raises(PrivateFileError, match="belongs to user 12345"):
        read_private(path)


@pytest.mark.timeout(30)
def test_a_fifo_is_refused_without_waiting_for_a_writer(path: Path) -> None:
    os.mkfifo(path, 0o600)
    with pytest.raises(PrivateFileError, match="not a regular file"):
        read_private(path)


def test_a_directory_is_not_read(path: Path) -> None:
    path.mkdir(mode=0o700)
    with pytest.raises(PrivateFileError, match="not a regular file"):
        read_private(path)


def test_a_socket_is_not_read(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        with pytest.raises(PrivateFileError, match="can't be read"):
            read_private(path)


def test_a_replaced_file_holds_the_new_bytes_alone(path: Path) -> None:
    replace_file(path, b"first, and longer", mode=0o600)
    replace_file(path, b"second", mode=0o644)
    assert path.read_bytes() == b"second"
    assert mode_of(path) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_what_a_crash_left_does_not_stop_a_replacement(path: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    path.with_name(".secret.partial").symlink_to(tmp_path / "victim")
    replace_file(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert (tmp_path / "victim").read_text() == "kept"


def test_a_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    open_directory(tmp_path / "a" / "keys")
    open_directory(tmp_path / "a" / "keys")
    assert mode_of(tmp_path / "a" / "keys") == 0o700


def test_a_directory_that_is_a_link_or_open_to_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(PrivateFileError, match="chmod 700"):
        open_directory(tmp_path / "open")
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with pytest.raises(PrivateFileError, match="not a directory"):
        open_directory(tmp_path / "link")


async def test_the_token_file_holds_the_first_token_alone(
    path: Path, admin: TokenAdmin, store: SqliteStore, authenticator: Authenticator
) -> None:
    await provide_token_file(path, admin=admin, tokens=store, now=NOW)
    token = path.read_text()
    assert token == token.strip() + "\n"
    assert (await authenticator.authenticate([f"Bearer {token.strip()}"], "peer")).may("admin")
    assert mode_of(path) == 0o600


async def test_a_second_start_keeps_the_token(path: Path, admin: TokenAdmin, store: SqliteStore) -> None:
    await provide_token_file(path, admin=admin, tokens=store, now=NOW)
    token = path.read_text()
    await provide_token_file(path, admin=admin, tokens=store, now=NOW)
    assert path.read_text() == token
    assert len(await admin.list()) == 1


@pytest.mark.parametrize("text", ["", "not a token", "jl_abcdefgh_" + "A" * 43, "{}x", "{}\n{}"])
async def test_a_file_with_no_token_of_this_server_stops_the_start(
    path: Path, admin: TokenAdmin, store: SqliteStore, text: str
) -> None:
    token = await admin.create_first()
    create_private(path, text.format(token, token).encode())
    with pytest.raises(PrivateFileError, match="holds no token of this server") as caught:
        await provide_token_file(path, admin=admin, tokens=store, now=NOW)
    assert token not in str(caught.value)


async def test_randomness_comes_from_the_clock(path: Path, store: SqliteStore) -> None:
    """So that a simulation can replay a run."""
    assert (
        await TokenAdmin(tokens=store, clock=ManualClock()).create_first()
        == await TokenAdmin(tokens=store, clock=ManualClock()).create_first()
    )


@pytest.mark.parametrize("revoked", [True, False])
async def test_a_token_that_works_no_more_stops_the_start(
    tmp_path: Path, store: SqliteStore, admin: TokenAdmin, revoked: bool
) -> None:
    """Else `up` would point at a token that every call refuses."""
    path = tmp_path / "token"
    await provide_token_file(path, admin=admin, tokens=store, now=NOW)
    [record] = await store.tokens()
    await store.put_token(replace(record, revoked_at=NOW - 1) if revoked else replace(record, expires_at=NOW - 1))
    with pytest.raises(PrivateFileError, match=f"revoked or has expired: remove it .rm '{path}'., and the next start"):
        await provide_token_file(path, admin=admin, tokens=store, now=NOW)
    path.unlink()
    await provide_token_file(path, admin=admin, tokens=store, now=NOW)
    authenticator = Authenticator(tokens=store, clock=ManualClock(), throttle=FailureThrottle(clock=ManualClock()))
    principal = await authenticator.authenticate([f"Bearer {path.read_text().strip()}"], "ipv4:127.0.0.1")
    assert principal.may("admin")
