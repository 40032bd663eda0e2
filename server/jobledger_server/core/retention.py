"""How long things are kept: rules of the operator's, and what they mean for events, logs, directories and jobs.

Receipts are under no rule: they are the leaves of a log that is worth something only while it is whole.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_pb2 import JOB_STATE_CANCELLED, JOB_STATE_COMPLETED, JOB_STATE_FAILED, JobState

from jobledger_server.core.ports.executor import LogSummary
from jobledger_server.core.ports.retention import Kept
from jobledger_server.core.times import SECOND, micros

UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86_400 * SECOND}
AGE = re.compile(r"([0-9]{1,9})([smhd])")
NEVER = "never"
DAY = UNITS["d"]

# None: for ever.
DEFAULT_AGES: Mapping[Kept, int | None] = {
    Kept.EVENTS: 7 * DAY,
    Kept.LOGS_INFO: 30 * DAY,
    Kept.LOGS_WARN: 90 * DAY,
    Kept.LOGS_ERROR: None,
    Kept.JOB_DIRS_COMPLETED: 7 * DAY,
    Kept.JOB_DIRS_FAILED: 30 * DAY,
    Kept.JOB_DIRS_CANCELLED: 7 * DAY,
    Kept.JOBS: None,
    Kept.AUDIT: 90 * DAY,
}

DIRECTORY_OF: Mapping[JobState.ValueType, Kept] = {
    JOB_STATE_COMPLETED: Kept.JOB_DIRS_COMPLETED,
    JOB_STATE_FAILED: Kept.JOB_DIRS_FAILED,
    JOB_STATE_CANCELLED: Kept.JOB_DIRS_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Retention:
    """The rules: an age in microseconds for each class, None for ever."""

    ages: Mapping[Kept, int | None]

    def cutoff(self, kept: Kept, now: int) -> int | None:
        """What is older than this instant goes; None where nothing does."""
        age = self.ages[kept]
        return None if age is None else max(0, now - age)

    def due(self, now: int) -> Mapping[Kept, int]:
        """The instants of all classes of which something goes: what is older does."""
        return {kept: cutoff for kept in self.ages if (cutoff := self.cutoff(kept, now)) is not None}

    def __str__(self) -> str:
        return ",".join(f"{kept.value}={age_text(age)}" for kept, age in self.ages.items())


DEFAULT_RETENTION = Retention(DEFAULT_AGES)


def retention_of(rules: Iterable[tuple[str, str]]) -> Retention:
    """The defaults, but for the rules that are given: (name of a class, age such as `7d`, or `never`).

    Raises:
        ValueError: there is no such class, it is named twice, or the age is none.
    """
    given: dict[Kept, int | None] = {}
    for name, age in rules:
        kept = Kept(name)
        if kept in given:
            raise ValueError(name)
        given[kept] = age_of(age)
    return Retention({**DEFAULT_AGES, **given})


def age_of(text: str) -> int | None:
    """`90s`, `30m`, `24h` or `7d` in microseconds; None for `never`.

    Raises:
        ValueError: it is none of these.
    """
    if text == NEVER:
        return None
    found = AGE.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return int(found[1]) * UNITS[found[2]]


def age_text(age: int | None) -> str:
    """An age as `age_of` reads it."""
    if age is None:
        return NEVER
    unit = next(unit for unit in ("d", "h", "m", "s") if age % UNITS[unit] == 0)
    return f"{age // UNITS[unit]}{unit}"


def kept_of(state: JobState.ValueType, log: LogSummary) -> tuple[Kept, Kept]:
    """Under which rules the log and the directory of a job fall that ended so."""
    if log.errors:
        return Kept.LOGS_ERROR, DIRECTORY_OF[state]
    return (Kept.LOGS_WARN if log.warnings else Kept.LOGS_INFO), DIRECTORY_OF[state]


def expired(events: Sequence[Event], cutoff: int) -> Sequence[Event]:
    """Those at the beginning that are older: up to the first that is not, since what is kept has no gaps."""
    for place, event in enumerate(events):
        if micros(event.timestamp_utc) >= cutoff:
            return events[:place]
    return events
