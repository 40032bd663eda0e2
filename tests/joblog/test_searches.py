"""A search reads a whole log: it stops when nobody waits for it, and few run at a time."""

import threading
from pathlib import Path

import pytest
from jobledger_server.joblog.reader import AbandonedError, LogQuery, LogReader
from jobledger_server.joblog.segments import Stream
from jobledger_server.joblog.writer import LogWriter


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    writer = LogWriter(tmp_path / "log", 1 << 16)
    for number in range(2000):
        writer.write(Stream.STDOUT, b"line %d\n" % number)
    writer.close()
    return tmp_path / "log"


@pytest.mark.parametrize("query", [LogQuery(contains="x"), LogQuery(subsystem="stderr"), LogQuery(contains="line")])
def test_a_search_that_is_abandoned_stops_at_the_next_stretch(log_dir: Path, query: LogQuery) -> None:
    abandoned, asked = threading.Event(), []

    def is_abandoned() -> bool:
        asked.append(1)
        if len(asked) == 2:
            abandoned.set()
        return abandoned.is_set()

    with pytest.raises(AbandonedError):
        LogReader(log_dir, 1).page(query, is_abandoned)
    assert len(asked) == 2


def test_a_page_that_needs_no_search_is_not_asked_whether_it_is_abandoned(log_dir: Path) -> None:
    assert LogReader(log_dir, 1).page(LogQuery(), lambda: True).total > 0
