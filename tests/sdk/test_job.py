"""What authors of jobs are promised: progress, identity, cancellation, configuration, output."""

import io
import logging
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from jobledger import job
from jobledger_server.executors.local.messages import MessageReader, Progress
from sdk.control_channel import Supervisor

pytestmark = pytest.mark.usefixtures("no_job")

REPORTS: dict[str, Callable[[], object]] = {
    "progress": lambda: job.progress(50, phase="half"),
    "track": lambda: list(job.track("abc")),
    "log": lambda: job.log("info", "hello"),
    "handler": lambda: job.LogHandler().emit(logging.makeLogRecord({"msg": "hello", "levelno": logging.INFO})),
    "raise_if_cancelled": job.raise_if_cancelled,
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until its one element is changed."""
    now = [1000.0]
    monkeypatch.setattr("jobledger.job.reports.monotonic", lambda: now[0])
    return now


# --- outside a job ---


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_outside_a_job_reports_do_nothing(report: Callable[[], object], stdout: io.BytesIO) -> None:
    report()
    assert stdout.getvalue() == b""
    assert job.cancelled() is False


@pytest.mark.parametrize("name", ["id", "run_id", "attempt"])
def test_outside_a_job_there_is_no_identity(name: str) -> None:
    with pytest.raises(job.NotAJobError, match="not running as a Jobledger job"):
        getattr(job, name)


def test_outside_a_job_the_missing_variable_is_named() -> None:
    with pytest.raises(job.NotAJobError, match="JOBLEDGER_JOB_CONFIG is not set"):
        job.config()
    with pytest.raises(job.NotAJobError, match="JOBLEDGER_OUTPUT_DIR is not set"):
        job.output("a.txt")


def test_the_module_needs_no_installed_package() -> None:
    """It runs with any Python that a job is started with."""
    folder = Path(job.__file__).parent
    for place, statement in ((folder.parents[1], "from jobledger import job"), (folder.parent, "import job")):
        check = f"import sys; sys.path.insert(0, {str(place)!r}); {statement}; job.progress(1)"
        subprocess.run([sys.executable, "-I", "-S", "-c", check], check=True)


def test_public_names_are_sorted_and_an_unknown_one_is_an_attribute_error() -> None:
    assert job.__all__ == sorted(job.__all__)
    assert not hasattr(job, "nonsense")


# --- progress ---


def test_progress_tells_what_was_given_and_nothing_else(supervisor: Supervisor) -> None:
    job.progress(12.5, phase="load", completed=1, total=8, eta_seconds=3)
    job.progress(phase="save")
    assert supervisor.messages() == [
        {
            "type": "progress",
            "percent": 12.5,
            "phase": "load",
            "items_completed": 1,
            "items_total": 8,
            "eta_seconds": 3.0,
        },
        {"type": "progress", "phase": "save"},
    ]


def test_the_percentage_follows_from_the_items(supervisor: Supervisor) -> None:
    job.progress(completed=1, total=4)
    job.progress(completed=0, total=0)
    assert [message.get("percent") for message in supervisor.messages()] == [25.0, None]


@pytest.mark.parametrize("number", [-1, math.nan, math.inf, 2**63])
def test_a_number_that_makes_no_sense_does_not_cost_the_rest(supervisor: Supervisor, number: float) -> None:
    job.progress(phase="x", eta_seconds=number)
    assert supervisor.messages() == [{"type": "progress", "phase": "x"}]


def test_nothing_to_say_says_nothing(supervisor: Supervisor) -> None:
    job.progress()
    job.progress(-1)
    job.progress(math.nan)
    job.progress(math.inf)
    assert supervisor.read() == b""


def test_whatever_is_reported_the_supervisor_understands(supervisor: Supervisor) -> None:
    """It discards a report with one bad field as a whole."""
    job.progress(100.00001, phase="é\udce9" * 300, completed=2**62, total=7)
    (message,) = MessageReader().feed(supervisor.read())
    assert isinstance(message, Progress)
    assert message.fields["percent"] == 100.0
    assert message.fields["phase"] == "é?" * 128


def test_progress_without_room_is_dropped(supervisor: Supervisor, stdout: io.BytesIO) -> None:
    supervisor.fill()
    job.progress(50)
    assert supervisor.read().strip() == b""
    assert stdout.getvalue() == b""
    job.progress(60)
    assert [message["percent"] for message in supervisor.messages()] == [60.0]


def test_progress_without_a_reader_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = tmp_path / "control"
    monkeypatch.setenv("JOBLEDGER_CONTROL", str(control))
    job.progress(50)
    os.mkfifo(control)
    job.progress(50)
    assert control.is_fifo()


# --- track ---


def test_a_loop_tells_its_start_and_its_end(supervisor: Supervisor, clock: list[float]) -> None:
    assert list(job.track("abcd", phase="read")) == list("abcd")
    told = [
        (message["items_completed"], message["items_total"], message["percent"]) for message in supervisor.messages()
    ]
    assert told == [(0, 4, 0.0), (4, 4, 100.0)]


def test_a_loop_tells_at_most_ten_times_a_second(supervisor: Supervisor, clock: list[float]) -> None:
    for _ in job.track(range(100)):
        clock[0] += 0.0125
    between = [message["items_completed"] for message in supervisor.messages()][1:-1]
    assert between == list(range(8, 100, 8))


def test_a_loop_over_an_unknown_number_counts(supervisor: Supervisor, clock: list[float]) -> None:
    list(job.track(iter("abc")))
    list(job.track(iter("abc"), total=6))
    first, second = supervisor.messages()[1::2]
    assert first == {"type": "progress", "items_completed": 3}
    assert second["percent"] == 50.0


def test_a_loop_that_is_left_early_tells_how_far_it_came(supervisor: Supervisor, clock: list[float]) -> None:
    tracked = iter(job.track("abcd"))
    next(tracked)
    with pytest.raises(ZeroDivisionError):
        tracked.throw(ZeroDivisionError())  # type: ignore[attr-defined]
    assert supervisor.messages()[-1]["items_completed"] == 0


# --- what a job has ---


def test_a_job_knows_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"JOB_ID": "job_1", "RUN_ID": "run_1", "ATTEMPT": "2"}.items():
        monkeypatch.setenv(f"JOBLEDGER_{name}", value)
    assert (job.id, job.run_id, job.attempt) == ("job_1", "run_1", 2)


def test_config_is_what_was_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"rate": 0.5}')
    monkeypatch.setenv("JOBLEDGER_JOB_CONFIG", str(tmp_path / "config.json"))
    assert job.config() == {"rate": 0.5}


def test_output_lies_below_its_directory_which_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBLEDGER_OUTPUT_DIR", str(tmp_path))
    path = job.output("deep/er/a.txt")
    path.write_text("x")
    assert path == tmp_path.resolve() / "deep/er/a.txt"
    assert job.output(path) == path


@pytest.mark.parametrize("path", ["../a.txt", "/etc/a.txt", "sub/../../a.txt", "link/a.txt", "", "."])
def test_output_does_not_leave_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    top = tmp_path / "output"
    top.mkdir()
    (top / "link").symlink_to(tmp_path)
    monkeypatch.setenv("JOBLEDGER_OUTPUT_DIR", str(top))
    with pytest.raises(ValueError, match="does not lie below the output directory"):
        job.output(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["output"]
