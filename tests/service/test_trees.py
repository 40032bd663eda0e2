"""Removing what jobs have made."""

import os
import stat
import tempfile
from pathlib import Path

import pytest
from jobledger_server.service import trees
from jobledger_server.service.trees import remove_tree


def test_a_tree_of_any_depth_goes() -> None:
    """Deeper than a call stack, and longer than a path may be."""
    top = Path(tempfile.mkdtemp()) / "top"
    top.mkdir()
    inner = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("directory", dir_fd=inner)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=inner))
        outer, inner = inner, os.open("directory", os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(inner)
    remove_tree(top)
    assert not top.exists()
    top.parent.rmdir()


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    (tmp_path / "top" / "a").mkdir(parents=True)
    (tmp_path / "top" / "link").symlink_to(precious)
    (tmp_path / "top" / "a" / "link").symlink_to(precious / "file")
    remove_tree(tmp_path / "top")
    assert not (tmp_path / "top").exists()
    assert (precious / "file").read_text() == "kept"


def test_directories_that_can_not_be_written_go_too(tmp_path: Path) -> None:
    (tmp_path / "top" / "closed" / "inner").mkdir(parents=True)
    (tmp_path / "top" / "closed").chmod(0o500)
    remove_tree(tmp_path / "top")
    assert not (tmp_path / "top").exists()


def test_nothing_there_is_fine(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")


def test_a_top_that_is_a_link_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    """Neither emptied nor opened up."""
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o500)
    (tmp_path / "top").symlink_to(precious)
    remove_tree(tmp_path / "top")
    assert not (tmp_path / "top").is_symlink()
    assert stat.S_IMODE(precious.stat().st_mode) == 0o500


def test_a_link_that_comes_while_a_tree_is_removed_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a directory was when its parent was listed."""
    precious, top = tmp_path / "precious", tmp_path / "top"
    precious.mkdir(mode=0o500)
    (precious / "file").write_text("kept")
    (top / "inner").mkdir(parents=True)
    list_files = trees._empty_of_files

    def list_and_swap(directory: int) -> list[str]:
        found = list_files(directory)
        if found == ["inner"]:
            (top / "inner").rmdir()
            (top / "inner").symlink_to(precious)
        return found

    monkeypatch.setattr(trees, "_empty_of_files", list_and_swap)
    with pytest.raises(OSError, match="inner"):
        remove_tree(top)
    assert (precious / "file").read_text() == "kept"
    assert stat.S_IMODE(precious.stat().st_mode) == 0o500
