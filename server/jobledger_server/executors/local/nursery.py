"""The process that shims are forked from: it has everything loaded, so that a start costs a fork and no more.

Its standard input is a socket. Each line read there is a JSON object: the path of a control directory (`control`), and
variables that are secret (`secret_env`), which nobody writes down. The answer is the pid of its shim, or the negative
errno where none could be forked. The first line that it writes is its own pid. Standard library and `joblog` only.

It is also the next of kin of its shims. What a shim that was killed leaves behind becomes a child of this process, and
is killed: a child that is no shim can be nothing else. For that it outlives the server, until its last shim has ended.
Of each attempt it keeps the lock open, beside the shim, until nothing is left of either: as long as the lock is held
something of the attempt may live, and nobody records its end.
"""

import contextlib
import gc
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from jobledger_server.executors.local import cgroup, core_dumps, open_files, shim
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.process_tree import (
    PR_SET_CHILD_SUBREAPER,
    children,
    children_pipe,
    descendants,
    prctl,
    send_signal,
)
from jobledger_server.executors.local.supervisor import KILL_SECONDS

REQUESTS = 0


class Ward(NamedTuple):
    """An attempt whose shim was forked here, the descriptor that keeps its lock, and the shim's control group."""

    control: ControlDir
    lock: int
    group: Path | None


def main(soft_open_files: str) -> None:
    """Serves until the input ends and no shim is left, in a process that the caller's parent need not wait for.

    Args:
        soft_open_files: how many files jobs may have open, where they have no limit of their own.
    """
    open_files.lower_limit(int(soft_open_files))
    core_dumps.forbid()
    if os.fork():
        os._exit(0)
    for number in shim.NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    nursery = Nursery(children_pipe())
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    cgroup.remove_leftovers()
    cgroup.count_processes()
    gc.freeze()
    # Whoever asks must know whom to wake.
    with contextlib.suppress(ConnectionError):
        os.write(REQUESTS, f"{os.getpid()}\n".encode())
    nursery.run()


class Nursery:
    """Forks shims, and sees to it that nothing of them is left once they have ended."""

    def __init__(self, children_ended: int) -> None:
        """Nursery that hears through a descriptor, see `children_pipe`, that a child has ended."""
        self._children_ended = children_ended
        self._sources = [children_ended, REQUESTS]
        self._rest = b""
        self._living: dict[int, Ward] = {}
        # With the moment from which what is left of them counts as unkillable, the first one first.
        self._ended: list[tuple[float, Ward]] = []

    def run(self) -> None:
        """Until nobody can ask any more and all that was asked for has ended."""
        while REQUESTS in self._sources or self._living or self._ended:
            readable, _, _ = select.select(self._sources, [], [], self._patience())
            if self._children_ended in readable:
                os.read(self._children_ended, 65536)
                self._reap()
            if self._children_ended in readable or self._ended:
                self._sweep()
            if REQUESTS in readable:
                self._read_requests()

    def _patience(self) -> float | None:
        """Seconds. None: only what happens next matters."""
        return max(0.0, self._ended[0][0] - time.monotonic()) if self._ended else None

    # --- what is left of shims ---

    def _reap(self) -> None:
        """A pid names the same shim until this: only then it may be given anew."""
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                if ward := self._living.pop(pid, None):
                    self._ended.append((time.monotonic() + KILL_SECONDS, ward))

    def _sweep(self) -> None:
        """Kills strays. Each one's end is a signal to look again: what it had below it has come to light by then."""
        strays = [pid for pid in children() if pid not in self._living]
        for stray in strays:
            for stat in descendants(stray):
                send_signal(stat.pid, signal.SIGKILL)
            send_signal(stray, signal.SIGKILL)
        # Whose strays they are can't be told where several shims have ended: all of them wait.
        while self._ended and (not strays or self._ended[0][0] <= time.monotonic()):
            _dismiss(self._ended.pop(0)[1])

    # --- new shims ---

    def _read_requests(self) -> None:
        try:
            said = os.read(REQUESTS, 65536)
        except ConnectionError:
            said = b""
        if not said:
            self._stop_listening()
        *lines, self._rest = (self._rest + said).split(b"\n")
        for line in lines:
            request = json.loads(line)
            answer = self._fork(ControlDir(Path(request["control"])), request["secret_env"])
            # A server that is gone by now will find the shim by its lock.
            with contextlib.suppress(ConnectionError):
                os.write(REQUESTS, f"{answer}\n".encode())

    def _stop_listening(self) -> None:
        """Nothing of the server's is kept open: somebody may wait for the end of its output."""
        self._sources.remove(REQUESTS)
        nothing = os.open(os.devnull, os.O_RDWR)
        for target in (0, 1, 2):
            os.dup2(nothing, target)
        os.close(nothing)

    def _fork(self, control: ControlDir, secret_env: Mapping[str, str]) -> int:
        try:
            lock = control.open_lock()
        except OSError as error:
            return -(error.errno or 1)
        ward = Ward(control, lock, cgroup.make(control.path.name))
        try:
            pid = cgroup.fork(ward.group)
        except OSError as error:
            _release(ward)
            return -(error.errno or 1)
        if pid == 0:
            self._become_shim(ward, secret_env)
        self._living[pid] = ward
        return pid

    def _become_shim(self, ward: Ward, secret_env: Mapping[str, str]) -> NoReturn:
        status = 1
        try:
            os.setsid()
            self._let_go()
            _redirect(ward.lock)
            shim.main(str(ward.control.path), ward.lock, secret_env, ward.group)
            status = 0
        except SystemExit as refusal:
            _complain(ward.control, str(refusal))
        except BaseException:  # noqa: BLE001 - nothing may get back into the nursery's loop
            _complain(ward.control, traceback.format_exc())
        finally:
            os._exit(status)

    def _let_go(self) -> None:
        """In a shim: most of all of the locks of others, which would count as alive for as long as this one."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(signal.set_wakeup_fd(-1))
        os.close(self._children_ended)
        for ward in (*self._living.values(), *(ward for _, ward in self._ended)):
            os.close(ward.lock)


def _dismiss(ward: Ward) -> None:
    """Lets go of the lock, and tells the server. A word that gets lost costs a second."""
    _release(ward)
    with contextlib.suppress(OSError):
        ward.control.wake_server()


def _release(ward: Ward) -> None:
    if ward.group:
        cgroup.remove(ward.group)
    os.close(ward.lock)


def _complain(control: ControlDir, text: str) -> None:
    """The last thing that a shim says. Perhaps it had no files left: it needs none any more but this one."""
    os.close(0)
    control.complain(text)


def _redirect(lock: int) -> None:
    """Nothing in, nothing out. By the lock in the third place supervisors are told from this process: `remains`."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for target, source in enumerate((nothing, nothing, lock)):
        os.dup2(source, target)
    os.close(nothing)
