"""Pages of logs that can't change any more, kept as they are sent under their entity tags."""

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path

from jobledger_server.joblog.reader import LogQuery
from jobledger_server.service.engine import VERSION

MOST_BYTES = 64 * 1024 * 1024


class SealedPages:
    """The pages used last, within a number of bytes."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._pages: OrderedDict[Hashable, bytes] = OrderedDict()

    def get(self, key: Hashable) -> bytes | None:
        """The page, where it is kept."""
        found = self._pages.get(key)
        if found is not None:
            self._pages.move_to_end(key)
        return found

    def put(self, key: Hashable, page: bytes) -> None:
        """Keeps a page, at the cost of those that nobody has asked for the longest.

        Args:
            key: its entity tag, and which of the forms it is that have this tag.
        """
        self._bytes += len(page) - len(self._pages.pop(key, b""))
        self._pages[key] = page
        while self._bytes > self._most_bytes:
            _, dropped = self._pages.popitem(last=False)
            self._bytes -= len(dropped)


def page_etag(job_id: str, log_dir: Path, query: LogQuery) -> str:
    """A strong entity tag of a page of a sealed log.

    The log of a job that has ended changes only where files of it are removed, and that shows in its directory's time.
    """
    try:
        changed = log_dir.stat().st_mtime_ns
    except FileNotFoundError:
        changed = 0
    asked = replace(query, levels=frozenset())
    parts = (VERSION, job_id, changed, sorted(query.levels), asked)
    return f'"{hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]}"'
