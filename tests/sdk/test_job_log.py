"""What authors of jobs are promised of their log entries: each arrives whole, by one way or the other."""

import io
import json
import logging
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobledger import job
from jobledger_server.joblog.structured import parse_structured
from sdk.control_channel import Supervisor

pytestmark = pytest.mark.usefixtures("no_job")


def test_an_entry_has_level_message_names_and_payload(supervisor: Supervisor) -> None:
    job.log("warn", "slow", subsystem="disk", correlation_id="c1", seconds=3, level="not the entry's")
    job.log("info", "plain")
    assert supervisor.messages() == [
        {
            "type": "log",
            "level": "warn",
            "message": "slow",
            "subsystem": "disk",
            "correlation_id": "c1",
            "payload": {"seconds": 3, "level": "not the entry's"},
        },
        {"type": "log", "level": "info", "message": "plain"},
    ]


def test_an_unknown_level_is_refused_outside_a_job_too() -> None:
    with pytest.raises(ValueError, match="there is no level 'notice'"):
        job.log("notice", "hello")


class Mute:
    """Can't even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError


def test_any_payload_is_told_as_far_as_json_goes(supervisor: Supervisor) -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    job.log("info", "odd", path=Path("/x"), loss=[math.nan, 1], cycle=cycle, mute=Mute(), name="a\udce9")
    line = supervisor.read().rstrip(b"\n")
    entry = parse_structured(line)
    assert entry is not None
    assert (entry.payload or {}) == {
        "type": "log",
        "path": "/x",
        "loss": ["NaN", 1],
        "cycle": "a list that can't be written as JSON",
        "mute": "a Mute that can't be written as JSON",
        "name": "a?",
    }


def test_what_is_nested_too_deeply_to_be_read_becomes_text(supervisor: Supervisor) -> None:
    deep: list[Any] = []
    for _ in range(30):
        deep = [deep]
    job.log("info", "deep", tree=deep)
    entry = parse_structured(supervisor.read().rstrip(b"\n"))
    assert entry is not None
    assert (entry.payload or {})["tree"] == "[" * 31 + "]" * 31


def test_an_entry_that_finds_no_room_is_printed(supervisor: Supervisor, stdout: io.BytesIO) -> None:
    supervisor.fill()
    job.log("error", "pressing", code=7)
    assert json.loads(stdout.getvalue()) == {"level": "error", "message": "pressing", "payload": {"code": 7}}
    assert supervisor.read().strip() == b""


def test_an_entry_waits_for_room_that_comes(
    supervisor: Supervisor, stdout: io.BytesIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobledger.job.entries.PATIENCE", 30.0)
    supervisor.fill()
    writer = threading.Thread(target=job.log, args=("info", "late"))
    writer.start()
    read = supervisor.read()
    writer.join(30)
    assert json.loads((read + supervisor.read()).strip())["message"] == "late"
    assert stdout.getvalue() == b""


def test_an_entry_without_a_reader_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stdout: io.BytesIO
) -> None:
    """The supervisor was killed: the job goes on, and standard output may still be kept by someone."""
    os.mkfifo(tmp_path / "control")
    monkeypatch.setenv("JOBLEDGER_CONTROL", str(tmp_path / "control"))
    job.log("info", "alone")
    assert json.loads(stdout.getvalue())["message"] == "alone"


def test_an_entry_that_others_could_tear_is_printed(supervisor: Supervisor, stdout: io.BytesIO) -> None:
    job.log("info", "long", text="x" * 5000)
    assert supervisor.read() == b""
    assert len(json.loads(stdout.getvalue())["payload"]["text"]) == 5000


def test_an_entry_beyond_64_kib_keeps_its_level(supervisor: Supervisor, stdout: io.BytesIO) -> None:
    """Whole, it would be cut into pieces that are plain text of level info."""
    job.log("error", "\x01" * 100_000, subsystem="s" * 70_000, text="x" * 100_000)
    line = stdout.getvalue().rstrip(b"\n")
    entry = parse_structured(line)
    assert len(line) < 64 * 1024
    assert entry is not None
    assert (entry.message, entry.subsystem, entry.payload) == ("\x01" * 8000, "s" * 256, {"truncated": True})


@pytest.mark.parametrize("closed", [None, io.TextIOWrapper(io.BytesIO())])
def test_a_job_without_standard_output_loses_the_entry_alone(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, closed: io.TextIOWrapper | None
) -> None:
    if closed:
        closed.close()
    monkeypatch.setattr(sys, "__stdout__", closed)
    job.log("info", "x" * 5000)


FORKS = """
import os
from jobledger import job
job.log("info", "before")
child = os.fork()
for number in range(40):
    job.log("info", "parent" if child else "child", number=number)
if child:
    os.waitpid(child, 0)
"""


def test_threads_and_forks_do_not_tear_each_others_lines(supervisor: Supervisor) -> None:
    def write(name: str) -> None:
        for number in range(40):
            job.log("info", name, number=number)

    names = [f"thread {index}" for index in range(3)]
    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    package = str(Path(job.__file__).parents[2])
    subprocess.run([sys.executable, "-c", FORKS], check=True, env={**os.environ, "PYTHONPATH": package})
    for thread in threads:
        thread.join()
    seen = [
        (message["message"], message["payload"]["number"]) for message in supervisor.messages() if "payload" in message
    ]
    assert sorted(seen) == sorted((name, number) for name in ("parent", "child", *names) for number in range(40))


# --- logging ---


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger("reader.csv")
    handler = job.LogHandler()
    made.addHandler(handler)
    made.setLevel(1)
    made.propagate = False
    yield made
    made.removeHandler(handler)


def test_levels_of_logging_have_their_place(supervisor: Supervisor, logger: logging.Logger) -> None:
    for level in (5, 10, 20, 25, 30, 40, 50):
        logger.log(level, "at %d", level)
    told = [(message["level"], message["message"]) for message in supervisor.messages()]
    assert told == [
        ("trace", "at 5"),
        ("debug", "at 10"),
        ("info", "at 20"),
        ("info", "at 25"),
        ("warn", "at 30"),
        ("error", "at 40"),
        ("error", "at 50"),
    ]


def test_extra_becomes_payload(supervisor: Supervisor, logger: logging.Logger) -> None:
    logger.info("row", extra={"row": 3, "correlation_id": "c1"})
    (message,) = supervisor.messages()
    assert message["subsystem"] == "reader.csv"
    assert message["correlation_id"] == "c1"
    assert message["payload"] == {"row": 3}


def test_a_stack_is_kept_as_payload(supervisor: Supervisor) -> None:
    job.LogHandler().emit(
        logging.makeLogRecord({"msg": "here", "levelno": logging.INFO, "stack_info": "Stack (most recent call last):"})
    )
    assert supervisor.messages()[0]["payload"] == {"stack": "Stack (most recent call last):"}


def test_an_exception_is_kept_as_payload(supervisor: Supervisor, logger: logging.Logger) -> None:
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        logger.exception("failed")
    (message,) = supervisor.messages()
    exception = message["payload"]["exception"]
    assert (message["level"], message["message"]) == ("error", "failed")
    assert exception["type"] == "ZeroDivisionError"
    assert exception["traceback"].startswith("Traceback")
    assert "1 // 0" in exception["traceback"]


def test_a_record_with_bad_arguments_does_not_end_the_job(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    job.LogHandler().emit(logging.makeLogRecord({"msg": "%d", "args": ("three",), "levelno": logging.INFO}))
    assert "--- Logging error ---" in capsys.readouterr().err
    assert supervisor.read() == b""
