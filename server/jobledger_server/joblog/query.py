"""What can be asked of a log. Standard library only."""

from dataclasses import dataclass

PAGE_BYTES = 3 * 1024 * 1024


class AbandonedError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which entries, and which page of them.

    Attributes:
        offset: entries to skip; `limit`: most entries in the page.
        levels: any of these; empty means all.
        subsystem: exactly this one.
        since: captured at or after, microseconds since the epoch; `until`: before.
        contains: the message contains this text, case and all.
        descending: latest first.
        after_sequence: only entries after this number, or before it where `descending`; `offset` counts from there.
        max_bytes: where the page would grow past this as a message, or past twice as much as JSON, it ends; but it has
            one entry at least.
    """

    offset: int = 0
    limit: int = 1000
    levels: frozenset[int] = frozenset()
    subsystem: str | None = None
    since: int | None = None
    until: int | None = None
    contains: str | None = None
    descending: bool = False
    after_sequence: int | None = None
    max_bytes: int = PAGE_BYTES

    @property
    def is_search(self) -> bool:
        """Whether it takes reading all that the rest admits, rather than a look at the index."""
        return self.subsystem is not None or self.contains is not None
