"""What was looked at is what is opened: no link is followed that came since."""

import os
from pathlib import Path

import pytest
from jobledger_server.core.real_paths import open_real, open_real_directory


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path.resolve() / "place"
    (place / "inner").mkdir(parents=True)
    (place / "inner" / "file").write_text("data")
    return place


def test_a_path_without_links_is_opened(place: Path) -> None:
    descriptor = open_real(place / "inner" / "file", os.O_RDONLY)
    assert os.read(descriptor, 10) == b"data"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("path", ["/", "inner"])
def test_a_directory_is_opened_to_be_entered(place: Path, path: str) -> None:
    descriptor = open_real_directory(place / path)
    assert os.path.samestat(os.fstat(descriptor), (place / path).stat())
    os.close(descriptor)


@pytest.mark.parametrize("link", ["inner", "inner/file"])
def test_a_link_in_any_component_is_refused_and_named(place: Path, link: str) -> None:
    """Also one that leads to the same file."""
    (place / link).rename(place / "moved")
    (place / link).symlink_to(place / "moved")
    with pytest.raises(PermissionError, match=f"{place / link} was replaced by a link"):
        open_real(place / "inner" / "file", os.O_RDONLY)


def test_a_directory_that_is_a_link_now_is_refused(place: Path) -> None:
    (place / "link").symlink_to(place / "inner")
    with pytest.raises(PermissionError, match="was replaced by a link"):
        open_real_directory(place / "link")


def test_dots_do_not_lead_up(place: Path) -> None:
    with pytest.raises(PermissionError, match=r"contains '\.\.'"):
        open_real(place / "inner" / ".." / "inner" / "file", os.O_RDONLY)


def test_what_is_not_there_is_named(place: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{place / 'gone'}"):
        open_real(place / "gone" / "file", os.O_RDONLY)
    with pytest.raises(NotADirectoryError):
        open_real(place / "inner" / "file" / "x", os.O_RDONLY)


def test_no_descriptor_is_left_open(place: Path) -> None:
    def opened() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    before = opened()
    for path in (place / "gone", place / "inner" / "file" / "x"):
        with pytest.raises(OSError, match="place"):
            open_real(path, os.O_RDONLY)
    os.close(open_real(place / "inner" / "file", os.O_RDONLY))
    assert opened() == before
