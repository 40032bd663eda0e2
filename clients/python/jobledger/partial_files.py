"""Files that are complete or not there: what came of one so far waits beside it, under a name that its hash gives."""

import asyncio
import contextlib
import errno
import hashlib
import os
import stat
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO

CHUNK = 1024 * 1024
# What a file system without hard links answers.
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class PartialFile:
    """A file that takes its place when it is complete. For one writer: nobody else writes to the same.

    What takes time is done in a thread.

    Attributes:
        size: bytes that are there.
    """

    def __init__(self, target: Path, sha256: str) -> None:
        self._target = target
        self._kept = target.with_name(f".jobledger-{sha256[:32]}.part")
        self._mine = target.with_name(f".jobledger-{uuid.uuid4().hex}.part")
        self._digest = hashlib.sha256()
        self._file: IO[bytes] | None = None
        self._left = False
        self.size = 0

    async def open(self) -> None:
        """Goes on with what an earlier writer kept, where there is something.

        Raises:
            OSError: the file can't be made.
        """
        await self._in_thread(self._open)

    async def write(self, chunk: bytes) -> None:
        """Adds a chunk.

        Raises:
            OSError: it can't be written.
        """
        await self._in_thread(self._write, chunk)

    async def begin_anew(self) -> None:
        """Forgets what is there."""
        await self._in_thread(self._empty)
        self._digest, self.size = hashlib.sha256(), 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def complete(self, *, overwrite: bool) -> None:
        """Gives the file its name.

        Raises:
            FileExistsError: that is taken, and was not to be overwritten.
        """
        self._opened.close()
        if overwrite:
            self._mine.replace(self._target)
            return
        try:
            os.link(self._mine, self._target)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            refuse_to_replace(self._target)
            self._mine.rename(self._target)

    def keep(self) -> None:
        """Leaves what is there to a later writer."""
        if self._file is not None and self.size:
            self._file.close()
            self._mine.replace(self._kept)

    def close(self) -> None:
        """Removes what is neither complete nor kept."""
        if self._file is not None:
            self._file.close()
        self._mine.unlink(missing_ok=True)

    @property
    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("the file is not open")
        return self._file

    async def _in_thread(self, work: Callable[..., None], *args: object) -> None:
        """Does work in a thread. Who is cancelled waits for its end: until then the file is in use."""
        working = asyncio.get_running_loop().run_in_executor(None, work, *args)
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            self._left = True
            while not working.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait((working,))
            raise

    def _open(self) -> None:
        with contextlib.suppress(OSError):
            if stat.S_ISREG(self._kept.lstat().st_mode):
                # Whoever moves it has it: a second writer begins anew.
                self._kept.rename(self._mine)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        self._file = os.fdopen(os.open(self._mine, flags, 0o666), "r+b")
        while not self._left and (chunk := self._file.read(CHUNK)):
            self._count(chunk)

    def _write(self, chunk: bytes) -> None:
        self._opened.write(chunk)
        self._opened.flush()
        self._count(chunk)

    def _empty(self) -> None:
        self._opened.seek(0)
        self._opened.truncate()

    def _count(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self.size += len(chunk)


@contextlib.asynccontextmanager
async def partial_file(target: Path, sha256: str, *keeping: type[BaseException]) -> AsyncIterator[PartialFile]:
    """A `PartialFile`, open. What is there stays for the next one where the block ends in one of these exceptions."""
    file = PartialFile(target, sha256)
    try:
        await file.open()
        yield file
    except keeping:
        file.keep()
        raise
    finally:
        file.close()


def refuse_to_replace(target: Path) -> None:
    """Says that a name is taken, be it by a link that leads nowhere.

    Raises:
        FileExistsError: it is.
    """
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))


def has_sha256(path: Path, sha256: str) -> bool:
    """Whether there is a file, and no link, with that hash."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
