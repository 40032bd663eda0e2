"""What a receipt says of the commit that a job ran from; and that reading it runs nothing and leads nowhere."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from jobledger_server.service.source_pins import git_pins

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{
        f"GIT_{who}_{what}": f"a{at}b" for who in ("AUTHOR", "COMMITTER") for what, at in (("NAME", ""), ("EMAIL", "@"))
    },
}


class Repository:
    """A git repository of one commit."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        self.git("init", "--quiet", "--initial-branch", "main")
        (place / "d").mkdir()
        (place / "a").write_text("one")
        (place / "d" / "b").write_text("two")
        (place / "link").symlink_to("a")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "first")

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.place), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout.strip()

    def pins(self, inside: str = "") -> Mapping[str, str]:
        return git_pins((self.place / inside).resolve(), [self.place.parent])

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")


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


def test_what_was_added_and_not_committed_is_not_called_clean(repository: Repository) -> None:
    (repository.place / "a").write_text("three")
    repository.git("add", "a")
    assert repository.pins()["git_dirty"] == "unknown"


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
