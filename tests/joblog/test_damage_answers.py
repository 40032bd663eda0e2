"""Whatever becomes of a log's files: an answer is the truth, or what of it lies before the damage, or an error."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from jobledger.v1.job_pb2 import LogEntry
from jobledger_server.joblog.promises import Promise
from jobledger_server.joblog.reader import LogQuery, LogReader
from jobledger_server.joblog.segments import DamagedLogError, Stream
from jobledger_server.joblog.writer import LogWriter

START = 1_700_000_000_000_000
CAPS = (1 << 30, 64 * 1024, 128 * 1024, 300_000)
Damage = Callable[[Path, random.Random], object]
Answer = tuple[int, int, bool, list[LogEntry]]


def write(log_dir: Path, chance: random.Random) -> Promise:
    """A sealed log of some attempts, perhaps past its cap: plain and structured lines, long ones, both streams."""
    cap, clock = chance.choice(CAPS), count(START, chance.choice([0, 1, 1000]))
    for _ in range(chance.randint(1, 3)):
        writer = LogWriter(log_dir, cap, now=lambda: next(clock))
        for number in range(chance.randint(20, 150)):
            writer.write(*chance.choice(list(chunks(number, chance))))
        writer.end()
        writer.seal()
        totals = writer.totals()
        writer.close()
    return Promise(totals.entries, totals.sha256)


def chunks(number: int, chance: random.Random) -> Iterator[tuple[Stream, bytes]]:
    level = chance.choice([b"error", b"debug", b"info"])
    yield Stream.STDOUT, b"line %d\n" % number * chance.randint(1, 60)
    yield Stream.STDERR, b"err %d\n" % number
    yield Stream.STDOUT, b'{"level":"%s","message":"m%d","subsystem":"a"}\n' % (level, number)
    yield Stream.STDOUT, b"\xff part" + b"x" * chance.randint(0, 5000)


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def swap(path: Path, chance: random.Random) -> None:
    other = chance.choice(sorted(path.parent.iterdir()))
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def remove_segment(path: Path, _: random.Random) -> None:
    for file in path.parent.glob(f"{path.stem}.*"):
        file.unlink()


def replace_by_directory(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: tuple[Damage, ...] = (
    flip,
    truncate,
    swap,
    remove_segment,
    replace_by_directory,
    lambda path, _: path.unlink(),
    lambda path, _: os.truncate(path, 0),
    lambda path, chance: path.write_bytes(path.read_bytes() + b"\0" * chance.randint(1, 200)),
)


def queries(total: int, last: int, times: list[int], chance: random.Random) -> Iterator[LogQuery]:
    for _ in range(16):
        by_place = chance.random() < 0.5
        yield LogQuery(
            limit=chance.choice([1, 10, 1000, 10_000]),
            offset=chance.randint(0, total + 2) if by_place else 0,
            after_sequence=None if by_place or chance.random() < 0.3 else chance.randint(0, last + 1),
            levels=frozenset(chance.sample(range(1, 6), chance.choice([0, 1, 3]))),
            contains=chance.choice(["7", "err", "zzz"]) if chance.random() < 0.2 else None,
            subsystem=chance.choice(["stdout", "a", "engine"]) if chance.random() < 0.2 else None,
            since=chance.choice(times) if chance.random() < 0.3 else None,
            until=chance.choice(times) if chance.random() < 0.3 else None,
            descending=chance.random() < 0.4,
        )


def answer(reader: LogReader, query: LogQuery) -> Answer:
    page = reader.page(query)
    return page.total, page.offset, page.has_more, list(page.entries)


def is_beginning(answered: Answer, truth: Answer) -> bool:
    entries = answered[3]
    return bool(entries) and answered[:3] == (*truth[:2], True) and entries == truth[3][: len(entries)]


@pytest.mark.parametrize("seed", range(6))
def test_an_answer_of_a_damaged_log_is_true_or_an_error(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    log_dir = tmp_path / "log"
    promise = write(log_dir, chance)
    reader = LogReader(log_dir, 1, promise)
    whole = reader.page(LogQuery(limit=1 << 30, max_bytes=1 << 30))
    times = [entry.timestamp_utc.ToMicroseconds() for entry in whole.entries]
    asked = list(queries(whole.total, promise.entries, times, chance))
    truths, content = [answer(reader, query) for query in asked], reader.read_content(0, 1 << 30)
    for number, damage in enumerate(DAMAGES):
        damaged = tmp_path / str(number)
        shutil.copytree(log_dir, damaged)
        damage(chance.choice(sorted(damaged.iterdir())), chance)
        # With the hash of the output out of the way, some of it is found by seals alone.
        reader = LogReader(damaged, 1, promise._replace(sha256=chance.choice([promise.sha256, ""])))
        for query, truth in zip(asked, truths, strict=True):
            try:
                answered = answer(reader, query)
            except DamagedLogError:
                continue
            assert answered == truth or is_beginning(answered, truth), (number, query)
        try:
            assert reader.read_content(0, 1 << 30) == content
        except DamagedLogError:
            continue
