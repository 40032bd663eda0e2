"""Seals: the hashes of a segment's files, taken when nothing more is written to them, so that damage shows.

`00000001.seal` is what `sha256sum 00000001.data 00000001.index` prints, so that `sha256sum --check *.seal` in the log's
directory needs nothing of ours; and a comment, which says what the log has come to by its end, so that whatever is lost
of a segment, numbers go on after it and totals hold. Standard library only.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from jobledger_server.joblog.checked import CHECKED, MOST_FILES, Identity, Remembered, identity
from jobledger_server.joblog.segments import (
    DATA,
    END_OF_TIME,
    INDEX,
    LARGEST_COUNT,
    MARK,
    RECORD,
    SEAL,
    DamagedLogError,
    Run,
    are_sound,
    open_regular,
    segment_path,
    unpack_run,
)
from jobledger_server.joblog.structured import LEVELS

DIGITS, HASH_DIGITS = 20, 64
NAMES = ("data", "index", "last", "time", "content", "trace", "debug", "info", "warn", "error")
# What seals say besides: numbers of the first segment that the cap has dropped by then, and of that after the last one.
DROPPED = ("dropped", "kept")
NOTHING = range(0)
LARGEST_SEAL = 4096


class Ending(NamedTuple):
    """What a log has come to by the end of a segment, with all that was ever dropped.

    Attributes:
        sequence: number of the last entry.
        time: when that was captured, microseconds since the epoch.
        content: bytes of output; `counts`: entries, by level from trace to error.
    """

    sequence: int
    time: int
    content: int
    counts: tuple[int, ...]

    @classmethod
    def of(cls, run: Run) -> Self:
        """After this run."""
        return cls(run.end_sequence - 1, run.time, run.content + run.content_length, run.after())


START = Ending(0, 0, 0, (0,) * len(LEVELS))


class Seal(NamedTuple):
    """What a seal says. Before it said how a log had ended, `sizes` (of data and index) and `ending` were not in it.

    Attributes:
        hashes: SHA-256 (hex) of data and index, by suffix.
        dropped: numbers of the segments that the cap has dropped by then; None where it was not in it yet either.
    """

    hashes: dict[str, str]
    sizes: dict[str, int] | None
    ending: Ending | None
    dropped: range | None


_PARSED: Remembered[tuple[int, Identity], Seal] = Remembered(MOST_FILES)


def write_seal(log_dir: Path, number: int, dropped: range = NOTHING) -> None:
    """Seals a segment. One that can't be written whole does not count as a seal: seal again.

    Args:
        dropped: numbers of the segments that the cap has dropped so far.

    Raises:
        OSError: it can't be written.
        DamagedLogError: something else is in the place of a file.
    """
    run = last_run(log_dir, number)
    if run is None:
        raise DamagedLogError(f"{segment_path(log_dir, number, INDEX)} has no last entry", number)
    hashes = {suffix: _hash(segment_path(log_dir, number, suffix)) for suffix in (DATA, INDEX)}
    sizes = [segment_path(log_dir, number, suffix).stat().st_size for suffix in (DATA, INDEX)]
    ending = Ending.of(run)
    values = (*sizes, *ending[:3], *ending.counts, dropped.start, dropped.stop)
    path = segment_path(log_dir, number, SEAL)
    with contextlib.suppress(DamagedLogError), os.fdopen(open_regular(path, os.O_WRONLY | os.O_CREAT), "wb") as file:
        file.truncate()
        file.write(_lines(number, hashes) + _comment(values))


def seal_path(log_dir: Path, number: int) -> Path:
    """Where a segment's seal is, or would be."""
    return segment_path(log_dir, number, SEAL)


def seal_bytes(number: int) -> int:
    """Size of a segment's seal."""
    nothing = dict.fromkeys((DATA, INDEX), "0" * HASH_DIGITS)
    return len(_lines(number, nothing) + _comment([0] * len(NAMES + DROPPED)))


def read_seal(log_dir: Path, number: int) -> Seal | None:
    """A segment's seal; None where it has none that is whole. It is parsed once, as long as its file stays as it is."""
    path = seal_path(log_dir, number)
    try:
        key = (number, identity(path.lstat()))
        found = _PARSED.get(key)
        if found is None:
            with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
                found = _parsed(number, file.read(LARGEST_SEAL))
            if found and identity(path.lstat()) == key[1]:
                _PARSED.put(key, found)
    except (DamagedLogError, OSError):
        return None
    return found


def dropped_segments(numbers: Sequence[int], seal_of: Callable[[int], Seal | None]) -> range:
    """Numbers of the segments that the cap has dropped, by what seals say of it.

    While the last segment has no seal, or one from before seals said so, it is the first ones that are left out; so it
    is where what a seal says can't be, whoever wrote it.

    Args:
        numbers: of the segments that there are, ascending. The first one of a log is 1.
    """
    left_out = next((range(place, number) for place, number in enumerate(numbers, 1) if number != place), NOTHING)
    if not left_out:
        return NOTHING
    seal = seal_of(numbers[-1])
    if seal and seal.dropped is not None and _may_say(numbers[-1], seal.dropped):
        return seal.dropped
    earlier = seal_of(numbers[-2]) if len(numbers) > 1 else None
    if not earlier or not earlier.dropped or not _may_say(numbers[-2], earlier.dropped):
        return left_out
    # More may have been dropped since: right after what was dropped before.
    return range(earlier.dropped.start, min(number for number in numbers if number >= earlier.dropped.stop))


def _may_say(number: int, dropped: range) -> bool:
    """Whether the seal of a segment may say so: only earlier ones were dropped by then."""
    return not dropped or 1 <= dropped.start < dropped.stop <= number


def is_sealed(log_dir: Path, number: int) -> bool:
    """Whether a segment has a whole seal."""
    return read_seal(log_dir, number) is not None


def seal_holds(log_dir: Path, number: int) -> bool | None:
    """Whether a segment is as it was when it was sealed; None where it has no seal."""
    seal = read_seal(log_dir, number)
    if seal is None:
        return None
    try:
        return all(_holds(segment_path(log_dir, number, suffix), seal.hashes[suffix]) for suffix in (DATA, INDEX))
    except (FileNotFoundError, DamagedLogError):
        return False


def sizes_hold(log_dir: Path, number: int, seal: Seal) -> bool:
    """Whether the files of a segment are as long as its seal says: a look that costs nothing."""
    try:
        sizes = {suffix: segment_path(log_dir, number, suffix).lstat().st_size for suffix in (DATA, INDEX)}
    except FileNotFoundError:
        return False
    return seal.sizes is None or sizes == seal.sizes


def damaged(log_dir: Path, number: int, found: str) -> DamagedLogError:
    """The error for a segment that does not fit together, in itself or with its neighbours, and what the seals say.

    Args:
        found: what is wrong with it.
    """
    for suspect in (number, number - 1, number + 1):
        if seal_holds(log_dir, suspect) is False:
            name = segment_path(log_dir, suspect, "")
            text = f"{name} was changed after it was sealed ({found}): restore it from a backup"
            return DamagedLogError(text, suspect)
        if segment_path(log_dir, suspect, MARK).exists():
            text = f"{segment_path(log_dir, suspect, '')} is damaged ({found}): restore it from a backup"
            return DamagedLogError(text, suspect)
    name = segment_path(log_dir, number, "")
    if is_sealed(log_dir, number):
        return DamagedLogError(f"{name}: {found}, though it is as it was sealed: report this as a bug", number)
    text = f"{name}: {found}. It has no seal to be checked against: restore it from a backup"
    return DamagedLogError(text, number)


def first_run(log_dir: Path, number: int) -> Run | None:
    """The first run of a segment's index, where it is whole."""
    try:
        descriptor = open_regular(segment_path(log_dir, number, INDEX), os.O_RDONLY)
    except (FileNotFoundError, DamagedLogError):
        return None
    with os.fdopen(descriptor, "rb") as file:
        record = file.read(RECORD.size)
    run = unpack_run(record, 0) if len(record) == RECORD.size else None
    return run if run and are_sound([run]) else None


def last_run(log_dir: Path, number: int) -> Run | None:
    """The last run that a segment's index has whole; None where there is none."""
    try:
        descriptor = open_regular(segment_path(log_dir, number, INDEX), os.O_RDONLY)
    except (FileNotFoundError, DamagedLogError):
        return None
    try:
        for place in range(os.fstat(descriptor).st_size // RECORD.size - 1, -1, -1):
            run = unpack_run(os.pread(descriptor, RECORD.size, place * RECORD.size), 0)
            if are_sound([run]):
                return run
    finally:
        os.close(descriptor)
    return None


def _holds(path: Path, digest: str) -> bool:
    descriptor = open_regular(path, os.O_RDONLY)
    try:
        return CHECKED.holds(descriptor, digest)
    finally:
        os.close(descriptor)


def _hash(path: Path) -> str:
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lines(number: int, hashes: dict[str, str]) -> bytes:
    return b"".join(f"{hashes[suffix]}  {number:08d}{suffix}\n".encode() for suffix in (DATA, INDEX))


def _comment(values: list[int] | tuple[int, ...]) -> bytes:
    pairs = " ".join(f"{name} {value:0{DIGITS}d}" for name, value in zip(NAMES + DROPPED, values, strict=False))
    return f"# {pairs}\n".encode()


def _parsed(number: int, text: bytes) -> Seal | None:
    hashes = _hashes_in(number, text)
    if hashes is None:
        return None
    values = _values_in(text[len(_lines(number, hashes)) :])
    if values is None:
        return Seal(hashes, None, None, None)
    sizes = {DATA: values[0], INDEX: values[1]}
    counts, dropped = tuple(values[5 : len(NAMES)]), values[len(NAMES) :]
    return Seal(hashes, sizes, Ending(values[2], values[3], values[4], counts), range(*dropped) if dropped else None)


def _hashes_in(number: int, text: bytes) -> dict[str, str] | None:
    parts = text.decode("latin-1").split("\n")
    hashes = {suffix: line[:HASH_DIGITS] for suffix, line in zip((DATA, INDEX), parts, strict=False)}
    whole = len(hashes) == len((DATA, INDEX)) and text.startswith(_lines(number, hashes))
    return hashes if whole else None


def _values_in(comment: bytes) -> list[int] | None:
    words = comment.decode("latin-1").split()[1:]
    if len(words) not in {2 * len(NAMES), 2 * len(NAMES + DROPPED)} or not all(
        word.isdecimal() for word in words[1::2]
    ):
        return None
    values = [int(word) for word in words[1::2]]
    can_be = max(values) < LARGEST_COUNT and values[NAMES.index("time")] < END_OF_TIME
    return values if can_be and _comment(values) == comment else None
