"""Hears of the end of a process that need not be a child."""

import asyncio
import os
from collections.abc import Callable
from types import TracebackType
from typing import Self

from jobledger_server.executors.local.process_tree import process_exists


class ExitWatch:
    """Calls `on_end` in the event loop once a process has ended. Without pidfds nothing is called: ask `ended`."""

    def __init__(self, pid: int | None, on_end: Callable[[], None]) -> None:
        self._pid = pid
        self._on_end = on_end
        self._descriptor: int | None = None
        self._ended = False

    def __enter__(self) -> Self:
        if self._pid is None or not hasattr(os, "pidfd_open"):
            return self
        try:
            self._descriptor = os.pidfd_open(self._pid)
        except ProcessLookupError:
            self._heard()
            return self
        except OSError:
            # No file descriptors left: then it is as where there are no pidfds.
            return self
        asyncio.get_running_loop().add_reader(self._descriptor, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def ended(self) -> bool:
        """Whether the process has ended."""
        if self._descriptor is None and self._pid is not None and not self._ended:
            return not process_exists(self._pid)
        return self._ended

    def _heard(self) -> None:
        self._close()
        self._ended = True
        self._on_end()

    def _close(self) -> None:
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
