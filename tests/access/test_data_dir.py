"""What lies in a data directory is believed: nobody else may have put it there."""

import os
from pathlib import Path

import pytest
from jobledger_server.access.data_dir import DIRECTORIES, FILES, check_data_dir
from jobledger_server.access.private_files import PrivateFileError
from jobledger_server.offline.backup import back_up
from support.root import only_root

OWNER = os.geteuid()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """One that was copied without its modes: others can read all of it, and write nothing."""
    directory = tmp_path / "data"
    directory.mkdir()
    for name in DIRECTORIES:
        (directory / name).mkdir()
    for name in FILES:
        (directory / name).touch()
    for path in (directory, *directory.iterdir()):
        path.chmod(0o755)
    return directory


def test_what_others_can_only_read_is_ours(data_dir: Path) -> None:
    (data_dir / "own-link").symlink_to("/")
    check_data_dir(data_dir, owner=OWNER)


@only_root
@pytest.mark.parametrize("name", [*FILES, *DIRECTORIES])
def test_what_somebody_else_has_made_is_refused(data_dir: Path, name: str) -> None:
    os.chown(data_dir / name, 12345, -1)
    with pytest.raises(PrivateFileError, match=f"{name} belongs to user 12345"):
        check_data_dir(data_dir, owner=OWNER)


@pytest.mark.parametrize("name", [*FILES, *DIRECTORIES])
def test_what_others_can_change_is_refused(data_dir: Path, name: str) -> None:
    for mode in (0o666, 0o720, 0o702):
        (data_dir / name).chmod(mode)
        with pytest.raises(PrivateFileError, match=f"chmod go-w {data_dir / name}"):
            check_data_dir(data_dir, owner=OWNER)


@pytest.mark.parametrize("name", [*FILES, *DIRECTORIES])
def test_what_leads_elsewhere_or_is_of_another_kind_is_refused(data_dir: Path, name: str) -> None:
    (data_dir / name).rename(data_dir / "elsewhere")
    for target in ("elsewhere", "nowhere") if name in FILES else (FILES[0], "nowhere"):
        (data_dir / name).symlink_to(data_dir / target)
        with pytest.raises(PrivateFileError, match=f"{name} is a symbolic link"):
            check_data_dir(data_dir, owner=OWNER)
        (data_dir / name).unlink()
    os.mkfifo(data_dir / name)
    with pytest.raises(PrivateFileError, match=f"{name} is not a"):
        check_data_dir(data_dir, owner=OWNER)


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_directory_may_lie_elsewhere_by_a_link_of_its_owner(data_dir: Path, name: str) -> None:
    (data_dir / name).rename(data_dir / "elsewhere")
    (data_dir / name).symlink_to(data_dir / "elsewhere")
    check_data_dir(data_dir, owner=OWNER)
    (data_dir / "elsewhere").chmod(0o777)
    with pytest.raises(PrivateFileError, match=f"chmod go-w {data_dir / name}"):
        check_data_dir(data_dir, owner=OWNER)


@only_root
@pytest.mark.parametrize("name", DIRECTORIES)
def test_neither_a_link_of_somebody_else_nor_one_to_theirs_is_followed(data_dir: Path, name: str) -> None:
    (data_dir / name).rename(data_dir / "elsewhere")
    (data_dir / name).symlink_to(data_dir / "elsewhere")
    os.chown(data_dir / name, 12345, -1, follow_symlinks=False)
    with pytest.raises(PrivateFileError, match=f"{name} is a symbolic link"):
        check_data_dir(data_dir, owner=OWNER)
    os.chown(data_dir / name, OWNER, -1, follow_symlinks=False)
    os.chown(data_dir / "elsewhere", 12345, -1)
    with pytest.raises(PrivateFileError, match=f"{name} belongs to user 12345"):
        check_data_dir(data_dir, owner=OWNER)


@only_root
def test_a_backup_of_root_holds_the_installation_to_its_own_user(data_dir: Path, tmp_path: Path) -> None:
    os.chown(data_dir, 12345, -1)
    with pytest.raises(PrivateFileError, match="belongs to user 0"):
        back_up(data_dir, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
