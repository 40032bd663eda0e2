"""What is there of a log: its segments, the one gap that the cap has made, and where it ends. Standard library only."""

import os
from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

from jobledger_server.joblog.files import SegmentFiles
from jobledger_server.joblog.seals import START, Ending, damaged, dropped_segments
from jobledger_server.joblog.segments import (
    INDEX,
    MARK,
    RECORD,
    SEAL,
    Run,
    are_sound,
    segment_files,
    segment_path,
    unpack_run,
)
from jobledger_server.joblog.structured import WARN


class Gap(NamedTuple):
    """Entries that were dropped: place among the runs, how many in all and of each level, and bytes of output.

    `before` has the entries that are kept before it, by level.
    """

    place: int
    first_sequence: int
    entries: int
    by_level: tuple[int, ...]
    content: int
    before: tuple[int, ...]

    @property
    def end_sequence(self) -> int:
        """Number after that of the last one."""
        return self.first_sequence + self.entries

    def without_dropped(self, counts: Iterable[int]) -> list[int]:
        """Counts of what is kept, and the gap as one entry, where `counts` has all up to a point after it."""
        kept = [count - dropped for count, dropped in zip(counts, self.by_level, strict=True)]
        kept[WARN - 1] += 1
        return kept


class Holdings:
    """A look at the files of a log.

    Attributes:
        records: how many records there are in the index of each segment, by its number, ascending; of those alone that
            have any.
        last: number of the last segment of which there is anything, 0 without any.
        ending: what the log has come to, where its last segment is sealed and says so.
        gap: what was dropped.
    """

    def __init__(self, log_dir: Path, files: SegmentFiles, without: Container[int] = frozenset()) -> None:
        """Looks at it.

        Args:
            without: numbers of segments whose indexes don't count.

        Raises:
            FileNotFoundError: a segment was removed meanwhile: look again.
            DamagedLogError: where the log goes on after the gap can't be told.
        """
        self._log_dir = log_dir
        self._files = files
        found = segment_files(log_dir)
        # All are listed before the first is measured: one that another follows has its final size then.
        sizes = {number: _index_size(log_dir, number) for number, suffixes in found.items() if INDEX in suffixes}
        self.records = {
            number: size // RECORD.size
            for number, size in sizes.items()
            if size >= RECORD.size and number not in without
        }
        lost = {number for number in found.keys() - self.records if self._was_lost(number, found[number])}
        known = [number for number in found if number in self.records or number in lost]
        self.last = known[-1] if known else 0
        seal = files.seal(self.last) if known else None
        self.ending = seal.ending if seal else None
        if known and not self.ending and self.last not in self.records:
            raise damaged(log_dir, self.last, "its index is gone")
        dropped = dropped_segments(known, files.seal)
        if not (seal and seal.dropped) and dropped and segment_path(log_dir, dropped.stop - 1, INDEX).exists():
            raise FileNotFoundError("segments were added while they were listed")
        for number in [number for number in known if number in dropped]:
            # It was there when they were listed, or the removal did not outlive a power failure.
            known.remove(number)
            self.records.pop(number, None)
        self._known, self._dropped = frozenset(known), dropped
        self.gap = self._find_gap(known, dropped)

    def misses(self, number: int) -> bool:
        """Whether there is nothing of a segment, though others follow and nothing says that it was dropped."""
        # Not a set of them: by what names a job gives to files there may be more than fit in memory.
        return 0 < number < self.last and number not in self._known and number not in self._dropped

    def _was_lost(self, number: int, suffixes: set[str]) -> bool:
        """Whether a segment was damaged, of which there are no records: not dropped, and not about to begin."""
        if MARK in suffixes:
            return True
        if SEAL in suffixes and not segment_path(self._log_dir, number, SEAL).exists():
            raise FileNotFoundError("a segment was removed while they were listed")
        return SEAL in suffixes and self._files.seal(number) is not None

    def _find_gap(self, known: list[int], dropped: range) -> Gap | None:
        """The one place where segment numbers leave some out that were dropped."""
        if not dropped:
            return None
        number = dropped.stop
        if number not in self.records or (dropped.start > 1 and dropped.start - 1 not in known):
            raise damaged(self._log_dir, number, "its index is gone")
        before = self._ending_of(dropped.start - 1) if dropped.start > 1 else START
        following = self._run(number, 0)
        by_level = tuple(later - earlier for later, earlier in zip(following.before, before.counts, strict=True))
        entries = following.first_sequence - before.sequence - 1
        if min(by_level) < 0 or entries <= 0:
            raise damaged(self._log_dir, number, "its index does not go on where the one before ends")
        place = sum(count for other, count in self.records.items() if other < number)
        content = following.content - before.content
        return Gap(place, before.sequence + 1, entries, by_level, content, before.counts)

    def _ending_of(self, number: int) -> Ending:
        seal = self._files.seal(number)
        if seal and seal.ending:
            return seal.ending
        if number not in self.records:
            raise damaged(self._log_dir, number, "its index is gone")
        return Ending.of(self._run(number, self.records[number] - 1))

    def _run(self, number: int, place: int) -> Run:
        run = unpack_run(self._files.index(number, place * RECORD.size, RECORD.size), 0)
        if not are_sound([run]):
            raise damaged(self._log_dir, number, "a record of its index makes no sense")
        return run


def _index_size(log_dir: Path, number: int) -> int:
    return os.stat(f"{log_dir}/{number:08d}{INDEX}").st_size  # noqa: PTH116 - of all segments, for every page
