"""A file that nobody else has ever been able to open, and that is there before what it is to hold."""

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path


class PrivateFile:
    """Takes the place of what lies at a path once it is written; until then it lies beside it, and goes if it never is.

    Args:
        path: where it is to be.
        keep_owner: whether root leaves the file to whoever has the one that it replaces.

    Raises:
        OSError: on entering: nothing can be made there.
    """

    def __init__(self, path: Path, *, keep_owner: bool = False) -> None:
        self._path, self._keep_owner = path, keep_owner

    def __enter__(self) -> "PrivateFile":
        if self._path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self._path))
        # Mode 600, under a name that nobody could have taken.
        descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}.", suffix=".partial", dir=self._path.parent)
        self._file, self._partial = os.fdopen(descriptor, "w", encoding="utf-8"), Path(name)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def __str__(self) -> str:
        return str(self._path)

    def write(self, text: str) -> None:
        """Puts the file in place with this in it.

        Raises:
            OSError: it can't be written; what was there is there.
        """
        if self._keep_owner and hasattr(os, "geteuid") and os.geteuid() == 0:
            # Else the server of another user, whose file root renews, could not read it any more.
            status = self._path.lstat()
            os.fchown(self._file.fileno(), status.st_uid, status.st_gid)
        self._file.write(text)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._partial.replace(self._path)
