"""Where the next writer of a log goes on, whatever has become of its files. Standard library only.

Only the last segment, and only while it has no seal, is repaired. A sealed one is never written to nor removed: where
one is damaged the log goes on in a new segment, with numbers after the highest that any file shows to have been given.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from jobledger_server.joblog.appending import Segment
from jobledger_server.joblog.seals import (
    START,
    Ending,
    dropped_segments,
    first_run,
    last_run,
    read_seal,
    seal_holds,
    sizes_hold,
)
from jobledger_server.joblog.segments import (
    DATA,
    INDEX,
    MARK,
    SEAL,
    DamagedLogError,
    segment_files,
    segment_path,
)
from jobledger_server.joblog.structured import INFO


class Place(NamedTuple):
    """Where a log goes on.

    Attributes:
        segment: to append to; it may have no files yet.
        ending: what the log has come to before.
        sizes: bytes of each segment that has any, by its number, ascending.
        dropped: numbers of the segments that the cap has dropped.
        unmarked: numbers of segments that are not as they were written, and are not marked so yet.
    """

    segment: Segment
    ending: Ending
    sizes: dict[int, int]
    dropped: range
    unmarked: list[int]


def open_end(log_dir: Path) -> Place:
    """Finds the place.

    Raises:
        OSError: a file can't be opened, or not be repaired.
    """
    files = _without_leftovers(log_dir)
    damaged = [number for number, suffixes in files.items() if _is_damaged(log_dir, number, suffixes)]
    last = max(files, default=1)
    segment = None
    if INDEX in files.get(last, {INDEX}) and read_seal(log_dir, last) is None:
        try:
            segment = Segment(log_dir, last)
        except DamagedLogError:
            damaged.append(last)
    elif seal_holds(log_dir, last) is False:
        damaged.append(last)
    ending = Ending.of(segment.last) if segment and segment.last else reached(log_dir, last, files)
    unmarked = [number for number in sorted(set(damaged)) if MARK not in files[number]]
    dropped = dropped_segments(list(files), partial(read_seal, log_dir))
    return Place(segment or Segment(log_dir, last + 1), ending, dict(_sizes(log_dir, files)), dropped, unmarked)


def reached(log_dir: Path, number: int, files: dict[int, set[str]]) -> Ending:
    """What a log had come to by the end of a segment; at least that, where only the segment itself could tell.

    An entry has a byte at least: where nothing says how many there were, there were no more than bytes.
    """
    earlier = [other for other in files if other < number]
    if number not in files:
        return reached(log_dir, earlier[-1], files) if earlier else START
    seal = read_seal(log_dir, number)
    if seal and seal.ending:
        return seal.ending
    run = last_run(log_dir, number)
    ending = Ending.of(run) if run else reached(log_dir, earlier[-1], files) if earlier else START
    untold = max(0, _size(segment_path(log_dir, number, DATA)) - (run.end if run else 0))
    counts = list(ending.counts)
    counts[INFO - 1] += untold
    return Ending(ending.sequence + untold, ending.time, ending.content + untold, tuple(counts))


def lost_numbers(log_dir: Path, number: int) -> tuple[int, int]:
    """Numbers of the first and the last entry that a segment had, as far as files around it tell; the last may be less
    than the first where they tell nothing.
    """
    files = segment_files(log_dir)
    last = reached(log_dir, number, files).sequence
    if number not in files:
        following = min((other for other in files if other > number), default=0)
        run = first_run(log_dir, following)
        last = run.first_sequence - 1 if run else 0
    return reached(log_dir, number - 1, files).sequence + 1, last


def mark(log_dir: Path, number: int) -> None:
    """Notes that a segment was found damaged: readers tell it from one that the cap dropped.

    Raises:
        OSError: it can't be written.
    """
    segment_path(log_dir, number, MARK).touch(mode=0o600)


def _without_leftovers(log_dir: Path) -> dict[int, set[str]]:
    """The files of a log, without what an interrupted removal or an interrupted beginning leaves: data alone."""
    files = segment_files(log_dir)
    for number in [number for number, suffixes in files.items() if suffixes == {DATA}]:
        data = segment_path(log_dir, number, DATA)
        if number < max(files) or not _size(data):
            data.unlink(missing_ok=True)
            del files[number]
    return files


def _is_damaged(log_dir: Path, number: int, suffixes: set[str]) -> bool:
    """Whether a glance shows it. What only a hash shows is found by who reads the segment, and hurts no number."""
    seal = read_seal(log_dir, number) if SEAL in suffixes else None
    if seal:
        return not sizes_hold(log_dir, number, seal)
    return INDEX not in suffixes or DATA not in suffixes


def _sizes(log_dir: Path, files: dict[int, set[str]]) -> Iterator[tuple[int, int]]:
    for number, suffixes in files.items():
        yield number, sum(_size(segment_path(log_dir, number, suffix)) for suffix in suffixes)


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.lstat().st_size
    return 0
