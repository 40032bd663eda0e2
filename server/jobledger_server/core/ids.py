"""Identifiers: ULIDs for jobs and runs, numbers for log entries."""

import re
from collections.abc import Iterable

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
JOB_ID = re.compile(r"job_[0-7][0-9a-hjkmnp-tv-z]{25}")

# Entry ids are the job's number and the entry's, side by side: 2^30 entries for each of 2^23 jobs stay below 2^53, the
# largest integer that every JSON reader keeps exact.
ENTRY_BITS = 30


def ulid(micros: int, randomness: bytes) -> str:
    """A ULID in lower case: 48 bits of milliseconds, then 80 random bits.

    Args:
        micros: the time, microseconds since the epoch.
        randomness: 10 bytes.
    """
    number = (micros // 1000) << 80 | int.from_bytes(randomness)
    return "".join(CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def is_job_id(text: str) -> bool:
    return JOB_ID.fullmatch(text) is not None


def log_entry_id(job_number: int, sequence: int) -> int:
    """Id of a job's log entry, unique across jobs."""
    return job_number << ENTRY_BITS | sequence & ((1 << ENTRY_BITS) - 1)


def log_entry_ids(job_number: int, sequences: Iterable[int]) -> list[int]:
    """Ids of a job's log entries: a page has thousands."""
    job, entry = job_number << ENTRY_BITS, (1 << ENTRY_BITS) - 1
    return [job | sequence & entry for sequence in sequences]
