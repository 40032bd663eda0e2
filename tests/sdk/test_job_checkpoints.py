"""What authors of jobs are promised: files that are declared, and checkpoints from which the next attempt goes on."""

import errno
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from jobledger import job
from jobledger_server.executors.local.messages import Checkpoint, MessageReader
from sdk.control_channel import Supervisor

pytestmark = pytest.mark.usefixtures("no_job")

BIG = "x" * 30_000
WRITERS = """
import os
from jobledger import job
job.reports.CHECKPOINT_PATIENCE = 60
child = os.fork()
for number in range(20):
    job.checkpoint({"by": "child" if child == 0 else "parent", "number": number, "text": "x" * 30000})
if child:
    os.waitpid(child, 0)
"""


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOBLEDGER_OUTPUT_DIR", str(tmp_path / "output"))
    return tmp_path / "output"


# --- artifacts ---


def test_a_declared_file_is_told_by_its_path_below_the_output_directory(supervisor: Supervisor, output: Path) -> None:
    job.artifact("model.bin")
    job.artifact(job.output("deep/er/model.bin"))
    job.artifact(output / "x" / ".." / "model.bin")
    told = [("artifact", path) for path in ("model.bin", "deep/er/model.bin", "model.bin")]
    assert [(message["type"], message["path"]) for message in supervisor.messages()] == told


@pytest.mark.parametrize("path", ["../a", "/etc/passwd", ".", ""])
def test_a_declared_file_does_not_lie_outside_the_output_directory(
    supervisor: Supervisor, output: Path, path: str
) -> None:
    with pytest.raises(ValueError, match="does not lie below"):
        job.artifact(path)
    assert supervisor.read() == b""


# --- checkpoints ---


def test_outside_a_job_there_is_nothing_to_declare_keep_or_restore() -> None:
    job.artifact("/anywhere")
    job.checkpoint({"row": 1})
    assert job.restore() is None


def test_restore_answers_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBLEDGER_CHECKPOINT", str(tmp_path / "checkpoint.json"))
    assert job.restore() is None
    (tmp_path / "checkpoint.json").write_text('{"row": 7}')
    assert job.restore() == {"row": 7}


@pytest.mark.parametrize("data", [{}, {"row": 7}, {"name": "caf\udce9 \u00e9"}, {"text": BIG}, {"text": "x" * 65_000}])
def test_a_checkpoint_arrives_as_it_was(supervisor: Supervisor, data: dict[str, Any]) -> None:
    reading = Reading(supervisor)
    job.checkpoint(data)
    (message,) = MessageReader().feed(reading.end())
    assert isinstance(message, Checkpoint)
    assert json.loads(message.text) == data


@pytest.mark.parametrize(
    "data", [{"at": float("nan")}, {"at": object()}, {"text": "x" * 65_536}, 7], ids=["nan", "object", "long", "number"]
)
def test_what_can_not_be_kept_is_refused_outside_a_job_too(data: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        job.checkpoint(data)


def test_a_checkpoint_without_room_is_left_out(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobledger.job.reports.CHECKPOINT_PATIENCE", 0.0)
    supervisor.fill()
    job.checkpoint({"row": 1})
    assert supervisor.read().strip() == b""


def test_a_line_in_several_pieces_is_not_torn_by_others(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes: other threads, other processes, and those whose lines go in one piece."""
    monkeypatch.setattr("jobledger.job.reports.CHECKPOINT_PATIENCE", 60.0)
    monkeypatch.setattr("jobledger.job.entries.PATIENCE", 60.0)
    assert len(BIG) > select.PIPE_BUF
    reading = Reading(supervisor)

    def write(name: str) -> None:
        for number in range(20):
            job.checkpoint({"by": name, "number": number, "text": BIG})
            job.log("info", name)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    package = str(Path(job.__file__).parents[2])
    subprocess.run([sys.executable, "-c", WRITERS], check=True, env={**os.environ, "PYTHONPATH": package})
    for thread in threads:
        thread.join()
    messages = [json.loads(line) for line in reading.end().splitlines()]
    kept = [(message["data"]["by"], message["data"]["number"]) for message in messages if "data" in message]
    assert sorted(kept) == [(name, number) for name in ("child", "first", "parent", "second") for number in range(20)]
    assert len(messages) - len(kept) == 40


def test_where_pipes_have_no_locks_lines_go_all_the_same(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    job.progress(5)
    job.checkpoint({"text": BIG})
    assert [message["type"] for message in supervisor.messages()] == ["progress", "checkpoint"]


class Reading:
    """Reads the channel in a thread, as supervisors do while a job writes."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._chunks: list[bytes] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def end(self) -> bytes:
        """All that was written."""
        self._over.set()
        self._thread.join()
        return b"".join(self._chunks)

    def _read(self) -> None:
        arrivals = select.poll()
        arrivals.register(self._supervisor.descriptor, select.POLLIN)
        while not self._over.is_set():
            arrivals.poll(10)
            self._chunks.append(self._supervisor.read())
        self._chunks.append(self._supervisor.read())
