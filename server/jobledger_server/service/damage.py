"""What was found damaged since the start, for those who watch the server."""

from dataclasses import dataclass


@dataclass(slots=True)
class Damage:
    """Written by whoever finds something, read for status and health.

    Attributes:
        artifacts: how many were quarantined.
        archive: what is wrong with the archive of receipts; empty where nothing is, as far as it was looked at.
        archive_checked_at: when all of the archive was last read; None before the first time.
    """

    artifacts: int = 0
    archive: str = ""
    archive_checked_at: int | None = None
