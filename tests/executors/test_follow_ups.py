"""Follow-ups: how many may wait, what they cost while they do, and that each arrives once, in order."""

import os
import resource
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger_server.core.ports import InputClosedError, InputFullError
from jobledger_server.core.ports.executor import MOST_WAITING, MOST_WAITING_BYTES
from jobledger_server.executors.local.attempt import Attempt
from jobledger_server.executors.local.control_dir import PROTOCOL, RECORD_HEAD, ControlDir
from jobledger_server.executors.local.feeder import Feeder
from jobledger_server.executors.local.guarded_files import write_json

MIB = 1024 * 1024
# More than a pipe takes.
LARGE = 200_000


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], Attempt]:
    """Sees a job with an open input as a server does that has just started."""
    control = ControlDir(tmp_path / "control" / "job_x.1")
    control.path.mkdir(parents=True)
    write_json(control.spec, {"protocol": PROTOCOL, "stdin_open": True})
    control.acknowledge(0)
    return lambda: Attempt(job_id="job_x", number=1, control_root=control.path.parent)


def texts(control: ControlDir) -> list[bytes]:
    return [control.read_input(start, end - start) for start, end, _ in control.follow_ups()]


@contextmanager
def fed(control: ControlDir, initial: bytes = b"") -> Iterator[tuple[Feeder, int]]:
    """A feeder, and the end that its job reads."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    feeder = Feeder(control, write_end, initial, keep_open=True)
    try:
        yield feeder, read_end
    finally:
        feeder.close()
        os.close(read_end)


def read(descriptor: int, most: int) -> bytes:
    try:
        return os.read(descriptor, most)
    except BlockingIOError:
        return b""


# --- what may wait ---------------------------------------------------------------------------------------------------


def test_as_many_bytes_wait_as_a_specification_may_have_and_more_are_refused(opened: Callable[[], Attempt]) -> None:
    attempt = opened()
    assert attempt.queue_input(b"x" * (MOST_WAITING_BYTES - 1), close=False) == 1
    assert attempt.queue_input(b"", close=False) == 2
    for server in (attempt, opened()):
        with pytest.raises(InputFullError):
            server.queue_input(b"ab", close=False)
    assert attempt.queue_input(b"a", close=False) == 3
    with pytest.raises(InputFullError):
        opened().queue_input(b"a", close=False)
    assert [len(text) for text in texts(attempt.control)] == [MOST_WAITING_BYTES - 1, 0, 1]


def test_what_the_process_has_taken_makes_room(opened: Callable[[], Attempt]) -> None:
    attempt = opened()
    for text in (b"a", b"b" * (MOST_WAITING_BYTES - 1)):
        attempt.queue_input(text, close=False)
    attempt.control.acknowledge(1)
    for server in (attempt, opened()):
        with pytest.raises(InputFullError):
            server.queue_input(b"cd", close=False)
    attempt.control.acknowledge(2)
    assert opened().queue_input(b"x" * MOST_WAITING_BYTES, close=False) == 1


def test_of_empty_ones_so_many_wait_and_the_input_can_still_be_ended(
    opened: Callable[[], Attempt],
) -> None:
    attempt = opened()
    attempt.control.input_log.write_bytes(RECORD_HEAD.pack(0, False) * (MOST_WAITING - 2))
    assert attempt.queue_input(b"x" * MOST_WAITING_BYTES, close=False) == MOST_WAITING - 1
    assert attempt.queue_input(b"", close=False) == MOST_WAITING
    for server in (attempt, opened()):
        with pytest.raises(InputFullError):
            server.queue_input(b"", close=False)
    assert opened().queue_input(b"", close=True) == MOST_WAITING + 1


@pytest.mark.parametrize("said", [-1, 3, 2**63])
def test_a_job_that_makes_up_what_it_has_taken_breaks_nothing(opened: Callable[[], Attempt], said: int) -> None:
    attempt = opened()
    attempt.queue_input(b"one", close=False)
    attempt.control.input_ack.write_bytes((said % 2**64).to_bytes(8, "little"))
    assert attempt.queue_input(b"two", close=False) == 0
    assert opened().queue_input(b"three", close=True) == 0
    assert texts(attempt.control) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("../../victim"), os.mkfifo])
def test_what_a_job_puts_in_place_of_the_queue_is_let_be(
    opened: Callable[[], Attempt], tmp_path: Path, make: Callable[[Path], None]
) -> None:
    (tmp_path / "victim").write_bytes(b"untouched")
    attempt = opened()
    make(attempt.control.input_log)
    with pytest.raises(InputClosedError):
        attempt.queue_input(b"x", close=False)
    assert (tmp_path / "victim").read_bytes() == b"untouched"


# --- crashes and full disks ------------------------------------------------------------------------------------------


def test_one_for_which_there_was_no_room_is_dropped_as_a_whole(opened: Callable[[], Attempt]) -> None:
    attempt = opened()
    attempt.queue_input(b"one\n", close=False)
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            attempt.queue_input(b"x" * 5000, close=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    assert attempt.control.input_log.stat().st_size == 1000
    assert attempt.queue_input(b"two\n", close=True) == 2
    assert texts(attempt.control) == [b"one\n", b"two\n"]


def test_a_crash_after_the_last_one_leaves_the_input_closed(opened: Callable[[], Attempt]) -> None:
    """Else what came then would be acknowledged, and never be read."""
    control = opened().control
    control.append_input(b"last\n", close=True)
    with pytest.raises(InputClosedError):
        opened().queue_input(b"lost\n", close=False)


# --- the shim --------------------------------------------------------------------------------------------------------


def test_what_nobody_reads_costs_a_shim_no_memory(opened: Callable[[], Attempt]) -> None:
    control = opened().control
    for _ in range(16):
        control.append_input(b"x" * MIB, close=False)
    tracemalloc.start()
    try:
        with fed(control) as (feeder, _):
            feeder.write()
            assert feeder.wants_write
            assert tracemalloc.get_traced_memory()[1] < MIB // 2
    finally:
        tracemalloc.stop()


def test_one_that_is_not_whole_yet_is_not_begun(opened: Callable[[], Attempt]) -> None:
    control = opened().control
    with fed(control) as (feeder, pipe):
        for part in (RECORD_HEAD.pack(6, True)[:3], RECORD_HEAD.pack(6, True)[3:], b"who"):
            with control.input_log.open("ab") as log:
                log.write(part)
            feeder.write()
            assert (read(pipe, LARGE), feeder.wants_write) == (b"", False)
        with control.input_log.open("ab") as log:
            log.write(b"le\n")
        feeder.write()
        assert (os.read(pipe, LARGE), os.read(pipe, LARGE)) == (b"whole\n", b"")


@pytest.mark.parametrize("wreck", [Path.unlink, lambda path: os.truncate(path, RECORD_HEAD.size + 10)])
def test_a_job_that_wrecks_the_queue_gets_no_more_and_keeps_nobody_busy(
    opened: Callable[[], Attempt], wreck: Callable[[Path], None]
) -> None:
    control = opened().control
    control.append_input(b"x" * LARGE, close=True)
    with fed(control) as (feeder, pipe):
        feeder.write()
        wreck(control.input_log)
        while read(pipe, LARGE):
            feeder.write()
        assert not feeder.wants_write
        assert feeder.descriptor is not None


def test_what_could_not_be_told_as_taken_is_told_later(opened: Callable[[], Attempt]) -> None:
    """Else it would take up room for good."""
    control = opened().control
    control.append_input(b"x", close=False)
    with fed(control) as (feeder, pipe):
        feeder.write()
        control.input_ack.unlink()
        control.input_ack.mkdir()
        assert read(pipe, 1) == b"x"
        assert (feeder.count_read(), feeder.unread) == (False, True)
        control.input_ack.rmdir()
        assert (feeder.count_read(), feeder.unread) == (True, False)
    assert control.acknowledged() == 1


SIZES = st.integers(0, 20) | st.integers(0, LARGE)


@settings(max_examples=60, deadline=None)
@given(
    initial=SIZES,
    sizes=st.lists(SIZES, max_size=6),
    steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, LARGE)), max_size=20),
)
def test_whatever_the_job_reads_when_it_gets_all_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, initial: int, sizes: Sequence[int], steps: Sequence[tuple[int, int]]
) -> None:
    """And no follow-up counts as taken before it has been read, unless the input has ended."""
    control = ControlDir(tmp_path_factory.mktemp("control"))
    words = [bytes([65 + number]) * size for number, size in enumerate((initial, *sizes))]
    waiting, received = list(enumerate(words[1:], 1)), b""
    with fed(control, words[0]) as (feeder, pipe):
        for queued, most in (*steps, (len(waiting), 0)):
            for number, word in waiting[:queued]:
                control.append_input(word, close=number == len(sizes))
            del waiting[:queued]
            feeder.write()
            received += read(pipe, most)
            feeder.count_read()
            taken = len(b"".join(words[: control.acknowledged() + 1]))
            assert taken <= max(len(received), initial) or feeder.descriptor is None
        while len(received) < len(b"".join(words)):
            feeder.write()
            received += read(pipe, LARGE)
        feeder.write()
        feeder.count_read()
        assert received == b"".join(words)
        assert control.acknowledged() == len(sizes)
        assert (feeder.descriptor is None) == bool(sizes)
