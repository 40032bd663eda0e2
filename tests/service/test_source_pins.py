"""What a receipt says of the commit that a job ran from; and that reading it runs nothing and leads nowhere."""

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobledger_server.service import source_pins
from jobledger_server.service.source_pins import git_pins
from support.repositories import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.mark.parametrize("inside", ["", "d"])
def test_a_clean_checkout_is_its_commit(repository: Repository, inside: str) -> None:
    assert repository.pins(inside) == {"git_commit": repository.head, "git_dirty": "no"}


def test_a_commit_is_found_in_a_packed_repository_on_a_branch_and_off_any(repository: Repository) -> None:
    repository.git("gc", "--quiet")
    assert repository.pins() == {"git_commit": repository.head, "git_dirty": "no"}
    repository.git("checkout", "--quiet", "-b", "feature/x-1")
    assert repository.pins()["git_commit"] == repository.head
    repository.git("checkout", "--quiet", "--detach")
    assert repository.pins() == {"git_commit": repository.head, "git_dirty": "no"}


def test_a_tracked_file_that_was_changed_makes_it_dirty(repository: Repository) -> None:
    (repository.place / "d" / "b").write_text("twO")
    assert repository.pins()["git_dirty"] == "yes"


def test_a_tracked_file_that_is_gone_makes_it_dirty(repository: Repository) -> None:
    (repository.place / "a").unlink()
    assert repository.pins()["git_dirty"] == "yes"


def test_a_tracked_file_that_became_a_link_makes_it_dirty(repository: Repository) -> None:
    (repository.place / "a").unlink()
    (repository.place / "a").symlink_to("/etc/passwd")
    assert repository.pins()["git_dirty"] == "yes"


def test_a_file_that_was_only_touched_does_not_make_it_dirty(repository: Repository) -> None:
    os.utime(repository.place / "a", (0, 0))
    assert repository.pins()["git_dirty"] == "no"


def add_and_fail_to_commit(repository: Repository) -> None:
    """A hook refuses the commit after git has written the index as it would be."""
    hook = repository.place / ".git" / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o700)
    (repository.place / "a").write_text("three")
    repository.git("commit", "--all", "--message", "second", check=False)
    repository.git("update-index", "--add", "a")
    repository.git("write-tree")


def add_only(repository: Repository) -> None:
    (repository.place / "a").write_text("three")
    repository.git("add", "a")


def add_and_put_back(repository: Repository) -> None:
    add_only(repository)
    (repository.place / "a").write_text("one")


def remove_from_the_index(repository: Repository) -> None:
    repository.git("rm", "--quiet", "--cached", "a")


def intend_to_add(repository: Repository) -> None:
    (repository.place / "new").touch()
    repository.git("add", "--intent-to-add", "new")


def go_back_softly(repository: Repository) -> None:
    repository.commit("second")
    repository.git("reset", "--quiet", "--soft", "HEAD~1")


def make_executable(repository: Repository) -> None:
    (repository.place / "a").chmod(0o755)


def point_the_link_elsewhere(repository: Repository) -> None:
    (repository.place / "link").unlink()
    (repository.place / "link").symlink_to("b")


def put_a_file_for_the_link(repository: Repository) -> None:
    (repository.place / "link").unlink()
    (repository.place / "link").write_text("a")


def leave_a_conflict(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "-b", "other")
    repository.commit("theirs")
    repository.git("checkout", "--quiet", "main")
    repository.commit("ours")
    repository.git("merge", "other", check=False)


@pytest.mark.parametrize(
    "change",
    [
        add_and_fail_to_commit,
        add_only,
        add_and_put_back,
        remove_from_the_index,
        intend_to_add,
        go_back_softly,
        make_executable,
        point_the_link_elsewhere,
        put_a_file_for_the_link,
        leave_a_conflict,
    ],
)
def test_whatever_git_would_name_makes_it_dirty(repository: Repository, change: Callable[[Repository], None]) -> None:
    change(repository)
    assert repository.git("status", "--porcelain", "--untracked-files=no")
    assert repository.pins() == {"git_commit": repository.head, "git_dirty": "yes"}


def test_a_change_that_git_can_not_see_is_not_called_clean(repository: Repository) -> None:
    """Of the same size, at the same time: by the index it is as it was."""
    file = repository.place / "a"
    before = file.stat()
    file.write_text("eno")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert repository.pins()["git_dirty"] == "unknown"


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_files_that_git_was_told_to_ignore_are_not_called_clean(repository: Repository, flag: str) -> None:
    repository.git("update-index", flag, "a")
    (repository.place / "a").write_text("changed all the same")
    assert repository.pins()["git_dirty"] in ("yes", "unknown")


def test_of_an_index_in_parts_nothing_is_told(repository: Repository) -> None:
    repository.git("update-index", "--split-index")
    (repository.place / "a").write_text("three")
    repository.git("add", "a")
    assert repository.pins() == {"git_commit": repository.head, "git_dirty": "unknown"}


def test_of_submodules_nothing_is_told(repository: Repository, tmp_path: Path) -> None:
    """But a directory in one is at the commit of the submodule, not of what is around it."""
    module = Repository(tmp_path / "module")
    module.commit("of the module")
    repository.git("submodule", "--quiet", "add", str(module.place), "inner")
    repository.git("commit", "--quiet", "--message", "with a module")
    assert repository.pins() == {"git_commit": repository.head, "git_dirty": "unknown"}
    assert repository.pins("inner") == {"git_commit": module.head, "git_dirty": "no"}
    (repository.place / "inner" / "a").write_text("changed")
    assert repository.pins("inner") == {"git_commit": module.head, "git_dirty": "yes"}


def test_a_linked_worktree_has_a_commit_of_its_own(repository: Repository) -> None:
    main = repository.head
    repository.git("worktree", "add", "--quiet", "-b", "elsewhere", "linked")
    linked = repository.place / "linked"
    (linked / "a").write_text("three")
    assert repository.pins("linked") == {"git_commit": main, "git_dirty": "yes"}
    repository.git("-C", "linked", "commit", "--quiet", "--all", "--message", "second")
    second = repository.git("-C", "linked", "rev-parse", "HEAD")
    assert second != main
    assert repository.pins("linked/d") == {"git_commit": second, "git_dirty": "no"}
    assert repository.pins() == {"git_commit": main, "git_dirty": "no"}


@pytest.mark.parametrize(
    "word", ["gitdir: {other}/.git", "gitdir: ../../outside/.git", "gitdir: {inner}", "", "gitdir: "]
)
def test_the_search_ends_at_the_first_repository_whatever_it_is(tmp_path: Path, word: str) -> None:
    """A repository outside of the roots is none of ours, and the one around it is not that of the directory."""
    (tmp_path / "roots").mkdir()
    outside = Repository(tmp_path / "outside")
    around = Repository(tmp_path / "roots" / "around")
    inner = around.place / "inner"
    inner.mkdir()
    (inner / ".git").write_text(word.format(other=outside.place, inner=inner))
    assert git_pins(inner.resolve(), [tmp_path / "roots"]) == {}


def test_a_commit_is_known_however_deep_it_lies_in_a_pack(repository: Repository) -> None:
    """In a pack most commits are told as differences from others."""
    for number in range(30):
        repository.commit(f"{number} {'long enough that a difference is shorter ' * 5}")
    commits = repository.git("rev-list", "HEAD").split()
    repository.git("repack", "-adfq", "--depth=50", "--window=50")
    repository.git("prune-packed")
    packed = repository.git("verify-pack", "-v", *(str(it) for it in repository.place.glob(".git/objects/pack/*.idx")))
    assert any(len(line.split()) == 7 and " commit " in line for line in packed.splitlines()), (
        "no commit is a difference"
    )
    for commit in commits:
        repository.git("checkout", "--quiet", "--detach", commit)
        assert repository.pins() == {"git_commit": commit, "git_dirty": "no"}
    repository.git("read-tree", commits[0])
    assert repository.pins()["git_dirty"] == "yes"


def test_repositories_of_sha_256_are_read_too(tmp_path: Path) -> None:
    modern = Repository(tmp_path / "modern", "--object-format=sha256")
    assert modern.pins() == {"git_commit": modern.head, "git_dirty": "no"}
    modern.git("gc", "--quiet")
    assert modern.pins() == {"git_commit": modern.head, "git_dirty": "no"}
    (modern.place / "a").write_text("eno")
    assert modern.pins()["git_dirty"] == "yes"


def test_a_repository_that_is_too_large_to_compare_is_not_called_clean(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_pins, "MOST_COMPARED", 5)
    assert repository.pins() == {"git_commit": repository.head, "git_dirty": "unknown"}
    (repository.place / "d" / "b").write_text("three")
    assert repository.pins()["git_dirty"] == "yes", "sizes are compared all the same"


def test_a_made_up_object_is_not_believed(repository: Repository) -> None:
    """An index and a commit that agree with each other and with nothing else."""
    commit = repository.head
    path = repository.place / ".git" / "objects" / commit[:2] / commit[2:]
    path.chmod(0o600)
    add_only(repository)
    tree = repository.git("write-tree")
    content = f"tree {tree}\n".encode()
    path.write_bytes(zlib.compress(b"commit %d\0" % len(content) + content))
    assert repository.pins()["git_dirty"] == "unknown"


@given(st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_is_in_gits_files_a_dirty_checkout_is_never_called_clean(
    repository: Repository, data: st.DataObject
) -> None:
    (repository.place / "d" / "b").write_text("twO")
    index = repository.place / ".git" / "index"
    if not (kept := repository.place / "kept").exists():
        kept.write_bytes(index.read_bytes())
    content = bytearray(kept.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    index.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    assert repository.pins()["git_dirty"] != "no"


def test_a_directory_without_a_repository_has_no_pins(tmp_path: Path) -> None:
    assert git_pins(tmp_path.resolve(), [tmp_path]) == {}


def test_a_repository_above_the_roots_is_none_of_ours(repository: Repository) -> None:
    inside = repository.place / "d"
    assert git_pins(inside.resolve(), [inside]) == {}


def test_no_link_is_followed(repository: Repository, tmp_path: Path) -> None:
    """Else a repository could tell the first bytes of any file that looks like a commit."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("0" * 40)
    head = repository.place / ".git" / "HEAD"
    head.unlink()
    head.symlink_to(elsewhere)
    assert repository.pins() == {}
    (repository.place / ".git").rename(tmp_path / "moved")
    (repository.place / ".git").symlink_to(tmp_path / "moved")
    assert repository.pins() == {}


@pytest.mark.parametrize(
    "head", ["", "ref: ../../etc/passwd", "ref: refs/heads/../../../x", "x" * 40, "ref: refs/none"]
)
def test_a_head_that_makes_no_sense_gives_no_pins(repository: Repository, head: str) -> None:
    (repository.place / ".git" / "HEAD").write_text(head)
    assert repository.pins() == {}


def test_a_pipe_in_place_of_a_file_holds_nothing_up(repository: Repository) -> None:
    (repository.place / "a").unlink()
    os.mkfifo(repository.place / "a")
    assert repository.pins()["git_dirty"] == "yes"
    (repository.place / ".git" / "HEAD").unlink()
    os.mkfifo(repository.place / ".git" / "HEAD")
    assert repository.pins() == {}


@pytest.mark.parametrize("index", [b"", b"DIRC", b"DIRC\0\0\0\2\xff\xff\xff\xff", b"DIRC\0\0\0\2\0\0\0\1" + b"x" * 90])
def test_an_index_that_makes_no_sense_tells_nothing(repository: Repository, index: bytes) -> None:
    (repository.place / ".git" / "index").write_bytes(index)
    assert repository.pins() == {"git_commit": repository.head, "git_dirty": "unknown"}


def test_nothing_that_the_repository_configures_is_run(repository: Repository, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for name in ("core.fsmonitor", "filter.x.clean", "filter.x.process"):
        repository.git("config", name, f"touch {ran}")
    (repository.place / ".git" / "info" / "attributes").write_text("* filter=x\n")
    os.utime(repository.place / "a", (0, 0))
    assert repository.pins()["git_dirty"] == "no"
    assert not ran.exists()
