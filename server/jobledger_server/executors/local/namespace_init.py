"""Process 1 of a job's own pid namespace: starts the command, reaps, passes on the request to end. See `bwrap`.

When it ends the kernel ends whatever else is in the namespace. Standard library only.
"""

import contextlib
import json
import os
import signal
import socket

from jobledger_server.executors.local.bwrap import CHANNEL
from jobledger_server.executors.local.child import Command, become_command, fork_child
from jobledger_server.executors.local.isolation import Isolation
from jobledger_server.executors.local.limits import ResourceLimit
from jobledger_server.executors.local.process_tree import PR_SET_DUMPABLE, prctl, send_signal


def main() -> None:
    """Runs the command that comes through the channel, and answers how that went."""
    channel = socket.socket(fileno=CHANNEL)
    channel.set_inheritable(False)
    # A job is of the same user: it could take over by ptrace who watches it, and say for itself how it ended.
    prctl(PR_SET_DUMPABLE, 0)
    command, streams = _received(channel)
    pid, failure = fork_child(command, become_command)
    init = Init(pid)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, init.pass_on)
    _let_go(streams)
    _say(channel, failure=failure)
    if failure is None:
        _say(channel, status=init.wait())


class Init:
    """Waits for the command, and in its place for all that have lost their parents."""

    def __init__(self, command: int) -> None:
        self._command = command
        self._asked = False

    def pass_on(self, *_: object) -> None:
        """SIGTERM to the command's group, stopped members included."""
        self._asked = True
        send_signal(-self._command, signal.SIGTERM)
        send_signal(-self._command, signal.SIGCONT)

    def wait(self) -> int:
        """The wait status of the command. If it was asked to end, the rest of its group may use the grace period."""
        status = None
        with contextlib.suppress(ChildProcessError):
            while status is None or (self._asked and self._group_lives()):
                pid, ended_with = os.waitpid(-1, 0)
                if pid == self._command:
                    status = ended_with
        return 0 if status is None else status

    def _group_lives(self) -> bool:
        try:
            os.killpg(self._command, 0)
        except ProcessLookupError:
            return False
        return True


def _received(channel: socket.socket) -> tuple[Command, list[int]]:
    _, streams, _, _ = socket.recv_fds(channel, 1, 3)
    for descriptor in streams:
        os.set_inheritable(descriptor, False)
    with channel.makefile("rb") as lines:
        told = json.loads(lines.readline())
    command = Command(
        argv=told["argv"],
        env=told["env"],
        working_dir=told["working_dir"],
        stdin=streams[0],
        stdout=streams[1],
        stderr=streams[2],
        limits=[ResourceLimit(*limit) for limit in told["limits"]],
        isolation=Isolation(),
        job_dir="",
        work_mount=told["work_mount"],
    )
    return command, streams


def _let_go(streams: list[int]) -> None:
    """They are the command's: whoever holds them counts as using them."""
    for descriptor in streams:
        os.close(descriptor)


def _say(channel: socket.socket, **answer: object) -> None:
    channel.sendall(json.dumps(answer).encode() + b"\n")
