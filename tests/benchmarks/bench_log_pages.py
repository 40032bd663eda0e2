"""Pages of a very long log: whether the place in it, or a filter, makes a difference."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from benchmarks.framework import Goal, NotMeasuredError, Row, Run, benchmark
from benchmarks.measuring import Call, interleaved, median, millis, percentile, ratio
from benchmarks.serving import Target, python, serving
from jobledger.v1.job_pb2 import JobLimits, LogLevel
from jobledger.v1.job_service_pb2 import GetLogsRequest, GetLogsResponse

ENTRIES, BLOCK, LIMIT = 10_000_000, 1000, 1000
LOG_BYTES = 16 * 2**30
ROUNDS = 100
DEEP, FILTERED, ANOTHER_MS, AGAIN_MS = 1.5, 3.0, 5.0, 1.0
# One line of each thousand is a structured entry, warn and error by turns.
WRITER = """
import sys
plain = b"".join(b"entry %d of a block, as long as lines of a log are\\n" % place for place in range({block} - 1))
rare = [b'{{"level":"%s","message":"one of a thousand"}}\\n' % level for level in (b"warn", b"error")]
for number in range({blocks}):
    sys.stdout.buffer.write(plain + rare[number % 2])
"""
RARE = (LogLevel.LOG_LEVEL_WARN, LogLevel.LOG_LEVEL_ERROR)


class Log(NamedTuple):
    """A job that has ended, and how many entries it wrote in all and of the rare levels."""

    target: Target
    job_id: str
    entries: int
    rare: int


# A page's place: offset, and whether only the rare levels are asked for.
Place = tuple[int, bool]
Ask = Callable[[Log, Place], Call]


@benchmark(
    "log-pages",
    goal=f"a page of {LIMIT} of {ENTRIES:,} log entries: the last as quick as the first ({DEEP} times), of rare levels"
    f" within {FILTERED:.0f} times, each another one {ANOTHER_MS:.0f} ms, the same again {AGAIN_MS:.0f} ms",
)
async def log_pages(run: Run) -> list[Row]:
    """GetLogs(limit=1000) of a job that has ended and left ten million entries, one of a thousand a warning or error.

    Times run from the request to the last byte of the answer, which is not parsed; medians of a hundred rounds, in each
    of which every kind of page is asked for once by both doors.

    - first, last: at offsets near 0 and near 9,999,000, another one each round.
    - rare first, rare last: the same with level=warn,error, of which there are ten thousand; times an unfiltered page
      is the median of first and last.
    - another: offsets all over the log, none asked for before.
    - again: one page that was asked for before.
    - totals off: entries by which `total` is wrong, with and without the filter.
    """
    async with serving(run.directory / "data") as target:
        log = await _written(target, run.scaled(ENTRIES // BLOCK) * BLOCK)
        rows = [Row(name="totals off", value=await _totals_off(log), unit="entries", goal=Goal(0))]
        rounds = run.scaled(ROUNDS)
        for number, (door, ask) in enumerate((("grpc", _by_grpc), ("rest", _by_rest))):
            rows += _rows(door, await _samples(log, ask, range(number * rounds + 1, (number + 1) * rounds + 1)))
    return rows


async def _written(target: Target, entries: int) -> Log:
    script = WRITER.format(block=BLOCK, blocks=entries // BLOCK)
    job_id = await target.create(*python(script), limits=JobLimits(log_bytes=LOG_BYTES))
    await target.ended(job_id)
    return Log(target, job_id, entries, entries // BLOCK)


async def _totals_off(log: Log) -> int:
    """Looks at what the pages hold, too: that which is measured must be the right thing."""
    first, last = await _page(log, (0, False)), await _page(log, (log.entries - LIMIT, False))
    rare = await _page(log, (0, True))
    sequences = [page.logs[place].job_sequence for page, place in ((first, 0), (first, -1), (last, 0), (last, -1))]
    if sequences != [1, LIMIT, log.entries - LIMIT + 1, log.entries]:
        raise NotMeasuredError(f"the pages begin and end with the entries {sequences}")
    if {entry.level for entry in rare.logs} != set(RARE):
        raise NotMeasuredError("the page of rare levels has others too")
    return abs(first.total - log.entries) + abs(last.total - log.entries) + abs(rare.total - log.rare)


async def _page(log: Log, place: Place) -> GetLogsResponse:
    return GetLogsResponse.FromString(await log.target.rpc("GetLogs", _request(log, place)))


def _request(log: Log, place: Place) -> GetLogsRequest:
    offset, rare = place
    return GetLogsRequest(job_id=log.job_id, limit=LIMIT, offset=offset, level=RARE if rare else ())


def _by_grpc(log: Log, place: Place) -> Call:
    return partial(log.target.rpc, "GetLogs", _request(log, place))


def _by_rest(log: Log, place: Place) -> Call:
    offset, rare = place
    query: dict[str, Any] = {"limit": LIMIT, "offset": offset} | ({"level": "warn,error"} if rare else {})
    return partial(log.target.get, f"/v1/jobs/{log.job_id}/logs", query)


async def _samples(log: Log, ask: Ask, turns: range) -> Mapping[str, list[float]]:
    """Seconds by kind of page. No place is asked for twice but that of `again`: not in turns of another door either."""
    samples: dict[str, list[float]] = {}
    step = (log.entries - 4 * LIMIT) // len(turns)
    await ask(log, (log.entries // 3, False))()
    for turn in turns:
        places: dict[str, Place] = {
            "first": (turn, False),
            "last": (log.entries - LIMIT - turn, False),
            "rare first": (turn, True),
            "rare last": (max(0, log.rare - LIMIT - turn), True),
            "another": (2 * LIMIT + turn * 7919 % len(turns) * step + turn, False),
            "again": (log.entries // 3, False),
        }
        timings = await interleaved(1, {name: ask(log, place) for name, place in places.items()})
        for name, (seconds,) in timings.items():
            samples.setdefault(name, []).append(seconds)
    return samples


def _rows(door: str, samples: Mapping[str, list[float]]) -> list[Row]:
    middle = {name: median(times) for name, times in samples.items()}
    unfiltered = median([*samples["first"], *samples["last"]])
    goals = {"another": ANOTHER_MS, "again": AGAIN_MS}
    return [
        *(millis(f"{door}, {name} page, p50", seconds, goals.get(name)) for name, seconds in middle.items()),
        millis(f"{door}, another page, p99", percentile(samples["another"], 0.99)),
        ratio(f"{door}, last page by first", middle["last"], middle["first"], DEEP),
        ratio(f"{door}, rare first page by unfiltered", middle["rare first"], unfiltered, FILTERED),
        ratio(f"{door}, rare last page by unfiltered", middle["rare last"], unfiltered, FILTERED),
    ]
