"""What the figures rest on: that they are taken as they are said to be, and told as they are."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from benchmarks.__main__ import measured
from benchmarks.framework import Benchmark, Goal, NotMeasuredError, Row, Run, discover, figure
from benchmarks.ledgers import write_ledger
from benchmarks.measuring import interleaved, percentile, steadily, together
from benchmarks.report import CHART_FILE, JSON_FILE, MARKDOWN_FILE, entry, write
from benchmarks.sse_readers import Reader, disordered, readings
from jobledger_server.core.ports import JobFilter
from jobledger_server.stores.sqlite.store import SqliteStore
from support.records import COMPLETED, FAILED

ROWS = [
    Row(name="in time", value=12.5, unit="ms", goal=Goal(30)),
    Row(name="too few", value=75, unit="jobs/s", goal=Goal(150, at_least=True)),
    Row(name="for comparison <&>", value=1234567, unit="lines/s"),
]


async def rows(run: Run) -> Sequence[Row]:
    """- in time: what is measured."""
    return ROWS


async def broken(run: Run) -> Sequence[Row]:
    """- nothing."""
    raise NotMeasuredError("the job was lost")


def found(name: str, *, failure: str = "") -> dict[str, object]:
    described = Benchmark(name=name, goal="to be quick", measure=rows)
    return entry(
        described, () if failure else ROWS, machine={"cores": 2}, measured_at="2026-01-02T03:04:05Z", failure=failure
    )


def test_every_benchmark_has_a_goal_and_defines_what_it_measures() -> None:
    benchmarks = discover()
    assert len(benchmarks) > 5
    assert [name for name, it in benchmarks.items() if not it.goal or len(it.definition) < 80] == []


def test_every_file_of_benchmarks_has_one() -> None:
    modules = {it.measure.__module__ for it in discover().values()}
    assert modules == {f"benchmarks.{path.stem}" for path in Path(__file__).parent.glob("bench_*.py")}


@pytest.mark.parametrize(
    ("share", "expected"), [(0.01, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.999, 100), (1.0, 100), (0.0, 1)]
)
def test_a_percentile_is_a_sample_that_so_many_do_not_exceed(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], share) == expected


def test_a_goal_is_met_right_at_its_bound_and_not_beyond() -> None:
    assert (Goal(30).is_met(30), Goal(30).is_met(30.1)) == (True, False)
    assert (Goal(150, at_least=True).is_met(150), Goal(150, at_least=True).is_met(149.9)) == (True, False)


def test_the_share_of_a_goal_is_beyond_one_where_it_is_missed() -> None:
    assert (Goal(30).share(15), Goal(150, at_least=True).share(75)) == (0.5, 2.0)
    assert (Goal(0).share(0), Goal(0).share(2)) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("value", "text"), [(0.04567, "0.0457 ms"), (12.34, "12.3 ms"), (1234567.8, "1,234,568 ms"), (100.0, "100 ms")]
)
def test_figures_have_three_digits_that_count(value: float, text: str) -> None:
    assert figure(value, "ms") == text


async def test_contenders_take_turns_and_the_order_turns_round() -> None:
    order: list[str] = []

    async def call(name: str) -> None:
        order.append(name)

    samples = await interleaved(2, {"bare": lambda: call("bare"), "job": lambda: call("job")})
    assert order == ["bare", "job", "job", "bare"]
    assert {name: len(times) for name, times in samples.items()} == {"bare": 2, "job": 2}


async def test_a_steady_load_does_not_wait_for_answers() -> None:
    """Else a stall would hide the calls that it holds up."""
    under_way, enough = 0, asyncio.Event()

    async def call() -> None:
        nonlocal under_way
        under_way += 1
        if under_way == 5:
            enough.set()
        await enough.wait()

    latencies = await steadily(call, rate=1000, until=lambda _: enough.is_set())
    assert len(latencies) >= 5
    assert max(latencies) >= 4 / 1000, "the first was due four beats before the fifth, which let it end"


async def test_callers_share_the_calls_and_make_each_once() -> None:
    made: list[int] = []

    async def call(number: int) -> None:
        await asyncio.sleep(0)
        made.append(number)

    await together([lambda number=number: call(number) for number in range(20)], callers=3)  # type: ignore[misc]
    assert sorted(made) == list(range(20))


def test_results_of_other_benchmarks_stay_when_some_are_measured_anew(tmp_path: Path) -> None:
    write(tmp_path, {"first": found("first"), "second": found("second")})
    write(tmp_path, {"second": found("second", failure="NotMeasuredError: the job was lost")})
    kept = json.loads((tmp_path / JSON_FILE).read_text())
    assert [row["met"] for row in kept["first"]["rows"]] == [True, False, None]
    assert kept["second"]["rows"] == []
    text = (tmp_path / MARKDOWN_FILE).read_text()
    assert "| too few | 75 jobs/s | at least 150 jobs/s | **no** |" in text
    assert "Not measured: NotMeasuredError: the job was lost" in text


def test_the_chart_has_a_bar_for_each_goal(tmp_path: Path) -> None:
    write(tmp_path, {"first": found("first")})
    chart = ET.parse(tmp_path / CHART_FILE).getroot()
    bars = [bar.get("class") for bar in chart.iter("{http://www.w3.org/2000/svg}rect")]
    assert bars == ["met", "missed"]


def test_what_could_not_be_measured_is_told_and_has_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    result = measured(Benchmark(name="broken", goal="none", measure=broken), trial=True)
    assert (result["failure"], result["rows"]) == ("NotMeasuredError: the job was lost", [])
    assert "not measured" in capsys.readouterr().out


async def test_a_ledger_is_one_that_the_store_takes_for_its_own(tmp_path: Path) -> None:
    write_ledger(tmp_path / "data", 250)
    async with SqliteStore(tmp_path / "data" / "jobledger.db") as store:
        counts = await store.count_by_state()
        rare = await store.list_jobs(JobFilter(job_type="rare", states=(COMPLETED,)), limit=100)
        page = await store.list_jobs(JobFilter(), limit=250)
    assert sum(counts.values()) == 250
    assert counts[FAILED] == 50
    assert rare.total == len(rare.records) > 0
    assert len({record.job.job_id for record in page.records}) == 250


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_reader_finds_the_same_events_however_the_bytes_come(size: int) -> None:
    data: dict[int, bytes] = {}
    reader = Reader(data)
    stream = b"HTTP/1.1 200 OK\r\n\r\n10\r\nretry: 2000\n\n\r\n30\r\nevent: replay.complete\ndata: {}\n\n\r\n"
    for number in range(5, 8):
        stream += b'40\r\nevent: job.state_changed\nid: %d\ndata: {"number":%d}\n\n\r\n' % (number, number)
    for start in range(0, len(stream), size):
        reader.feed(stream[start : start + size], 0.0)
    assert reader.live
    assert [number for number, _ in reader.arrivals] == [5, 6, 7]
    assert data[7] == b'{"number":7}'


def test_readings_count_what_is_missed_and_what_comes_twice() -> None:
    complete, gappy = Reader({}), Reader({})
    complete.arrivals = [(1, 10.5), (2, 11.5), (3, 12.5)]
    gappy.arrivals = [(1, 10.1), (3, 12.1), (3, 12.2)]
    seen = readings([complete, gappy], {1: 10.0, 2: 11.0, 3: 12.0})
    assert (seen.events, seen.arrivals, seen.missed, seen.disordered) == (3, 6, 1, 1)
    assert seen.longest == 0.5
    assert disordered([1, 2, 2, 1, 5]) == 2
