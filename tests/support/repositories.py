"""Git repositories for tests, made by git itself without any configuration of whoever runs them."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

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

    def __init__(self, place: Path, *options: str) -> None:
        self.place = place
        place.mkdir()
        self.git("init", "--quiet", "--initial-branch", "main", *options)
        (place / "d").mkdir()
        (place / "a").write_text("one")
        (place / "d" / "b").write_text("two")
        (place / "link").symlink_to("a")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "first")

    def git(self, *arguments: str, check: bool = True) -> str:
        command = ["git", "-C", str(self.place), "-c", "protocol.file.allow=always", *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True, env=ENVIRONMENT).stdout.strip()

    def commit(self, name: str) -> None:
        """Changes a file and commits that."""
        (self.place / "a").write_text(name)
        self.git("commit", "--quiet", "--all", "--message", name)

    def pins(self, inside: str = "") -> Mapping[str, str]:
        return git_pins((self.place / inside).resolve(), [self.place.parent])

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")
