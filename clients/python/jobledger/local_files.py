"""What a server on this machine left for its clients: read only where nobody else can have put it there.

Whoever could would choose the server that is sent a token, or whose token is sent to a server.
"""

import errno
import json
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from jobledger.errors import SetupError

log = logging.getLogger(__name__)

OTHERS, OTHERS_WRITE = stat.S_IRWXG | stat.S_IRWXO, stat.S_IWGRP | stat.S_IWOTH
# Windows has neither owners nor modes of this kind.
POSIX = hasattr(os, "geteuid")
UNREACHABLE = "E_ENGINE_UNREACHABLE"
NAME_ANOTHER = "name a server of your own with --data-dir, or be that user"


def local_endpoints(directory: Path) -> Mapping[str, str | None] | None:
    """What the server on a data directory says of itself in `endpoints.json`; None where none runs.

    Raises:
        SetupError: it can't be read; it or the directory is someone else's (unless this is root) or writable for
            others, or it is a link; it names a socket or token file that is not in the directory.
    """
    path = directory / "endpoints.json"
    try:
        text, status = _read_own(path)
        found = {name: str(value) if value else None for name, value in dict(json.loads(text)).items()}
        around = directory.stat()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(f"{path} can't be read: {error}", error_code=UNREACHABLE) from error
    if POSIX and around.st_uid != status.st_uid:
        raise _refused(f"{path} belongs to user {status.st_uid}, its directory to user {around.st_uid}", NAME_ANOTHER)
    if POSIX and around.st_mode & OTHERS_WRITE:
        raise _refused(f"other users can write to {directory}", f"look through it, then chmod go-w {directory}")
    for name in ("unix", "http_unix", "token_file"):
        place = (found.get(name) or "").removeprefix("unix:")
        if place and not Path(place).resolve().is_relative_to(directory.resolve()):
            raise _refused(f"{path} names {place}, which is not in that directory", "start the server there again")
    return found


def local_token(path: Path, directory: Path) -> str:
    """The token in the file that `endpoints.json` names, if it is as closed as the server wants it.

    Raises:
        SetupError: it can't be read, is empty, a link, open to others, or not of the owner of the data directory.
    """
    try:
        text, status = _read_own(path)
        owner = directory.stat().st_uid
    except (OSError, ValueError) as error:
        raise SetupError(f"The token in {path} can't be read: {error}", error_code="E_AUTH_MISSING") from error
    if POSIX and status.st_uid != owner:
        raise _refused(f"{path} belongs to user {status.st_uid}, and {directory} to user {owner}", NAME_ANOTHER)
    if POSIX and status.st_mode & OTHERS:
        raise _refused(f"{path} is open to other users", f"check who may have read it, then chmod 600 {path}")
    return _token(text, path)


def read_token(path: str | Path) -> str:
    """The token that a file holds alone. A warning where others can read it, too.

    Raises:
        SetupError: the file can't be read, or is empty.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except (OSError, ValueError) as error:
        raise SetupError(f"The token in {path} can't be read: {error}", error_code="E_AUTH_MISSING") from error
    if POSIX and stat.S_ISREG(mode) and mode & OTHERS:
        log.warning("Warning: the token in %s is open to other users: chmod 600 %s", path, path)
    return _token(text, path)


def _token(text: str, path: str | Path) -> str:
    if not text.strip():
        raise SetupError(f"{path} holds no token", error_code="E_AUTH_MISSING")
    return text.strip()


def _read_own(path: Path) -> tuple[str, os.stat_result]:
    """The text of a file of this user's, or for root of anybody's, to which nobody else can write."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refused(f"{path} is a symbolic link", "put the file itself there") from None
        raise
    with os.fdopen(descriptor, encoding="utf-8") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(f"{path} is not a regular file", "move it away")
        if POSIX and os.geteuid() not in (0, status.st_uid):
            raise _refused(f"{path} belongs to user {status.st_uid}", NAME_ANOTHER)
        if POSIX and status.st_mode & OTHERS_WRITE:
            raise _refused(f"other users can write to {path}", f"check what it says, then chmod go-w {path}")
        return file.read(), status


def _refused(why: str, remedy: str) -> SetupError:
    return SetupError(f"No token is sent, since {why}: {remedy}", error_code=UNREACHABLE)
