"""A job learns that it is to end, and has its grace period for that."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobledger import job

FORKED = """
import os, signal
from jobledger import job
assert not job.cancelled()
report, report_to = os.pipe()
child = os.fork()
if not child:
    os.write(report_to, b"!")
    signal.pause()
    os._exit(3)
os.read(report, 1)
os.kill(child, signal.SIGTERM)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
assert not job.cancelled()
os.kill(os.getpid(), signal.SIGTERM)
assert job.cancelled()
if not os.fork():
    assert not job.cancelled()
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(0 if job.cancelled() else 4)
assert os.wait()[1] == 0
"""


@pytest.fixture(autouse=True)
def sigterm() -> Iterator[None]:
    """SIGTERM as a program finds it, and afterwards as it was."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def job_dir(no_job: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOBLEDGER_JOB_DIR", str(tmp_path))
    return tmp_path


def test_cancellation_is_seen_once_the_file_is_there(job_dir: Path) -> None:
    assert not job.cancelled()
    job.raise_if_cancelled()
    (job_dir / "cancelled").touch()
    assert job.cancelled()
    with pytest.raises(job.CancelledError):
        job.raise_if_cancelled()
    assert not issubclass(job.CancelledError, Exception)


def test_who_has_asked_survives_the_signal_and_learns_of_it(job_dir: Path) -> None:
    """A timeout sends the signal and leaves no file."""
    assert not job.cancelled()
    os.kill(os.getpid(), signal.SIGTERM)
    assert job.cancelled()
    with pytest.raises(job.CancelledError):
        job.raise_if_cancelled()


def test_who_never_asks_ends_by_the_signal_as_ever(job_dir: Path) -> None:
    for _ in job.track("ab", phase="reading"):
        job.progress(5)
    job.artifact(job_dir / "a.txt")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("no_job")
def test_outside_a_job_the_signal_is_left_alone() -> None:
    assert not job.cancelled()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("own", [signal.SIG_IGN, lambda *_: None])
def test_a_handler_of_the_program_stays(job_dir: Path, own: signal.Handlers) -> None:
    signal.signal(signal.SIGTERM, own)
    assert not job.cancelled()
    assert signal.getsignal(signal.SIGTERM) == own


def test_other_threads_may_ask(job_dir: Path) -> None:
    """They can't take over the signal; what the main thread has taken over they see."""
    answers: list[bool] = []

    def ask() -> None:
        thread = threading.Thread(target=lambda: answers.append(job.cancelled()))
        thread.start()
        thread.join()

    ask()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    job.cancelled()
    os.kill(os.getpid(), signal.SIGTERM)
    ask()
    assert answers == [False, True]


def test_what_is_forked_ends_by_the_signal_until_it_asks_for_itself(job_dir: Path) -> None:
    """`multiprocessing` waits for the end of workers that it terminates."""
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=30)
