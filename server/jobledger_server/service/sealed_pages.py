"""Pages of logs that can't change any more, kept as they are sent under their entity tags."""

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from jobledger.v1.job_pb2 import Job

from jobledger_server.core.times import micros
from jobledger_server.joblog.checked import Remembered, fingerprint
from jobledger_server.joblog.reader import LogQuery
from jobledger_server.service.engine import VERSION

MOST_BYTES = 64 * 1024 * 1024
LONGEST_UNSEEN_SECONDS = 1.0


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


class Seen(NamedTuple):
    """What a log's files were like: when, by the monotonic clock; and when their directory had changed last, ns."""

    at: float
    changed: int
    state: str


_SEEN: Remembered[Path, Seen] = Remembered(1024)


def page_etag(job: Job, log_dir: Path, query: LogQuery) -> str:
    """A strong entity tag of a page of a sealed log.

    The log of a job that has ended changes only where its files are changed or removed, and that shows in what the
    directory says of them; that all of it was removed is told by the job, a moment later.
    """
    changed = _state_of(log_dir)
    asked = replace(query, levels=frozenset())
    parts = (VERSION, job.job_id, changed, micros(job.log_removed_at), sorted(query.levels), asked)
    return f'"{hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]}"'


def _state_of(log_dir: Path) -> str:
    """What tells the state of a log's files: looked at once a second, since it takes a call for each.

    Files that come, go or are replaced show at once. One that is written to in its place shows within that second:
    until then a tag may stand for bytes read before and after, but not beyond, since the state that it is made of, with
    the times of all files, never comes back. And what is read of a segment is held against its seal each time.
    """
    try:
        changed = log_dir.stat().st_mtime_ns
    except FileNotFoundError:
        return ""
    now, seen = monotonic(), _SEEN.get(log_dir)
    if seen and seen.changed == changed and now - seen.at < LONGEST_UNSEEN_SECONDS:
        return seen.state
    state = hashlib.sha256(repr(fingerprint(log_dir)).encode()).hexdigest()
    _SEEN.put(log_dir, Seen(now, changed, state))
    return state
