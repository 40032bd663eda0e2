"""Paths that callers name stay within the roots."""

import errno
import os
from pathlib import Path

import pytest
from jobledger.v1.errors_pb2 import ErrorReason
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.paths import allowed_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "file").write_text("data")
    (tmp_path / "secret").write_text("secret")
    return root


def reason_for(path: str, roots: list[Path]) -> ErrorReason.ValueType:
    with pytest.raises(ServiceError, match=r"spec\.working_dir") as caught:
        allowed_path(path, roots, "spec.working_dir")
    return caught.value.reason


def test_a_path_within_a_root_is_allowed(root: Path) -> None:
    for path in (root, root / "file", root / "inner" / "not yet there"):
        assert allowed_path(str(path), [Path("/nowhere"), root], "f") == path


def test_a_link_that_stays_within_the_root_is_followed(root: Path) -> None:
    (root / "link").symlink_to(root / "inner")
    assert allowed_path(str(root / "link" / "x"), [root], "f") == root / "inner" / "x"


def test_a_root_may_be_a_link_itself(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    assert allowed_path(str(tmp_path / "alias" / "file"), [tmp_path / "alias"], "f") == root / "file"


@pytest.mark.parametrize("path", ["relative", "", "~/x", "./x"])
def test_a_path_that_is_not_absolute_breaks_a_rule(root: Path, path: str) -> None:
    assert reason_for(path, [root]) == Reason.ERROR_REASON_VALIDATION


def test_nul_breaks_a_rule(root: Path) -> None:
    assert reason_for(f"{root}/a\0b", [root]) == Reason.ERROR_REASON_VALIDATION


@pytest.mark.parametrize("path", ["{}/../secret", "{}/inner/../file", "{}/.."])
def test_dots_are_traversal_even_where_they_come_back(root: Path, path: str) -> None:
    assert reason_for(path.format(root), [root]) == Reason.ERROR_REASON_PATH_TRAVERSAL


def test_a_link_out_of_the_root_is_traversal(root: Path, tmp_path: Path) -> None:
    (root / "out").symlink_to(tmp_path)
    (root / "leak").symlink_to(tmp_path / "secret")
    assert reason_for(str(root / "out" / "secret"), [root]) == Reason.ERROR_REASON_PATH_TRAVERSAL
    assert reason_for(str(root / "leak"), [root]) == Reason.ERROR_REASON_PATH_TRAVERSAL


def test_links_in_a_circle_are_no_fault_of_the_server(root: Path) -> None:
    (root / "one").symlink_to(root / "two")
    (root / "two").symlink_to(root / "one")
    assert allowed_path(str(root / "one"), [root], "f").is_relative_to(root)


@pytest.mark.parametrize("path", ["/etc/passwd", "/", "//etc/passwd"])
def test_a_path_outside_all_roots_is_not_allowed(root: Path, path: str) -> None:
    assert reason_for(path, [root]) == Reason.ERROR_REASON_PATH_NOT_ALLOWED
    assert reason_for(path, []) == Reason.ERROR_REASON_PATH_NOT_ALLOWED


def test_a_name_that_merely_begins_like_a_root_is_outside(root: Path) -> None:
    assert reason_for(f"{root}-other/x", [root]) == Reason.ERROR_REASON_PATH_NOT_ALLOWED


@pytest.mark.parametrize("path", ["data", "data/token", "data/not yet there", "link", "link/token", "leak"])
def test_what_is_hidden_is_out_of_bounds_though_it_lies_in_a_root(root: Path, path: str) -> None:
    """By its name, and by any link to it."""
    (root / "data").mkdir()
    (root / "data" / "token").write_text("secret")
    (root / "link").symlink_to(root / "data")
    (root / "leak").symlink_to(root / "data" / "token")
    for hidden in (root / "data", root / "link"):
        with pytest.raises(ServiceError, match=r"f: .* lies in the server's data directory") as caught:
            allowed_path(str(root / path), [root], "f", hidden=hidden)
        assert caught.value.reason == Reason.ERROR_REASON_PATH_NOT_ALLOWED
    for beside in ("data-other", "file", "inner"):
        assert allowed_path(str(root / beside), [root], "f", hidden=root / "data") == root / beside


def test_what_is_hidden_is_known_by_another_name_too(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that no link explains: a mount, or other letters where the file system makes no difference."""
    (tmp_path / "data").mkdir()
    real_stat = os.stat

    def stat(path: os.PathLike[str], **options: bool) -> os.stat_result:
        return real_stat(tmp_path / "data" if Path(path) == root / "inner" else path, **options)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(ServiceError, match="lies in the server's data directory"):
        allowed_path(str(root / "inner" / "token"), [root], "f", hidden=tmp_path / "data")


def test_a_path_that_changes_while_it_is_followed_is_no_fault_of_the_server(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.path.realpath

    def realpath(path: str | Path, *, strict: bool = False) -> str:
        if Path(path) == root / "file":
            raise OSError(errno.EINVAL, "Invalid argument", path)
        return real(path, strict=strict)

    monkeypatch.setattr(os.path, "realpath", realpath)
    with pytest.raises(ServiceError, match="name a path that nothing changes meanwhile") as caught:
        allowed_path(str(root / "file"), [root], "f")
    assert caught.value.reason == Reason.ERROR_REASON_PATH_TRAVERSAL
