"""Pages of logs that can't change any more, kept ready under their entity tags."""

import hashlib
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

from jobledger.v1.job_service_pb2 import GetLogsResponse

from jobledger_server.joblog.reader import LogQuery
from jobledger_server.service.engine import VERSION

MOST_BYTES = 64 * 1024 * 1024


class SealedPages:
    """The pages used last, within a number of bytes (of their wire format). They are not to be changed."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._pages: OrderedDict[str, tuple[GetLogsResponse, int]] = OrderedDict()

    def get(self, etag: str) -> GetLogsResponse | None:
        """The page, where it is kept."""
        found = self._pages.get(etag)
        if found is None:
            return None
        self._pages.move_to_end(etag)
        return found[0]

    def put(self, etag: str, page: GetLogsResponse) -> None:
        """Keeps a page, at the cost of those that nobody has asked for the longest."""
        size = page.ByteSize()
        _, replaced = self._pages.pop(etag, (None, 0))
        self._pages[etag] = (page, size)
        self._bytes += size - replaced
        while self._bytes > self._most_bytes:
            _, (_, dropped) = self._pages.popitem(last=False)
            self._bytes -= dropped


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
