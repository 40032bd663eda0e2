"""Isolation by bubblewrap: namespaces of its own, in which the data directory is not there. Standard library only.

    shim ─ keeper ─ bwrap ─ namespace_init (process 1 of the job's own pid namespace) ─ the command

bwrap tells a signal as an exit code, and holds on to the standard streams of what it runs. So the command is not run by
it but within it, by `namespace_init`, which gets command and streams through a socket and answers how it ended. The
keeper, a fork of the shim, ends the same way: to the shim it is the job's first process, as it is without isolation.
Where one of them dies, the kernel ends all to the right of it.
"""

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any, NoReturn

from jobledger_server.core.real_paths import open_real_directory
from jobledger_server.executors.local import interpreter
from jobledger_server.executors.local.child import Command, Failure, leave_parent, mount_of
from jobledger_server.executors.local.isolation import TMP, IsolationError, writable
from jobledger_server.executors.local.process_tree import PR_SET_DUMPABLE, prctl

NAMESPACE_INIT = "jobledger_server.executors.local.namespace_init"
# Process 1 answers through this descriptor.
CHANNEL = 3
COMPLAINT_BYTES = 4096
# By these root changes the kernel for all, capabilities or not: the files are its own.
KERNEL_SETTINGS = tuple(
    f"/proc/{name}" for name in ("sys", "sysrq-trigger", "irq", "bus", "fs", "driver", "acpi", "scsi", "mtrr")
)


def become_keeper(command: Command, report_to: int) -> Failure:
    """Starts the command in its namespaces, and ends as it ends. Returns only to say why it can't be started."""
    stage = "working_dir"
    try:
        # bwrap mounts by name. What came of that is compared with this, before the command is run.
        command = command._replace(work_mount=mount_of(open_real_directory(Path(command.working_dir))))
        stage = "prepare"
        leave_parent(command._replace(limits=()))
        # To end is up to the command, which hears of it by process 1. Both are as ever for the command itself.
        for number in (signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        channel, theirs = socket.socketpair()
        complaints, complain_to = os.pipe()
        stage = "isolation"
        bwrap = _start(command, theirs.fileno(), complain_to)
        theirs.close()
        _hand_over(command, channel)
        _close_all_but(channel.fileno(), complaints, report_to)
        answers = Answers(channel)
        answer = answers.next()
    except OSError as error:
        return Failure(stage, error.errno or 0, error.strerror or str(error))
    except IsolationError as error:
        return Failure(stage, 0, str(error))
    if answer is None or answer["failure"]:
        os.waitpid(bwrap, 0)
        return Failure(*answer["failure"]) if answer else Failure(stage, 0, _last_line(complaints))
    os.close(report_to)
    return _end_as(_status(bwrap, answers))


def arguments(command: Command) -> list[str]:
    """The command line of bwrap, up to what it is to run. Later mounts cover earlier ones.

    Raises:
        IsolationError: the command would have to write to the server's files.
    """
    job, *work = writable(command.isolation, command.job_dir, command.working_dir)
    data = str(Path(command.isolation.data_dir).resolve())
    mounts = {
        "/": ["--ro-bind", "/", "/"],
        "/dev": ["--dev", "/dev"],
        "/proc": ["--proc", "/proc"],
        TMP: ["--bind", str(job / "temp"), TMP],
        # Where we are installed below it, process 1 must find itself.
        **{place: ["--ro-bind", place, place] for place in interpreter.PLACES if place.startswith(f"{TMP}/")},
        **{place: ["--ro-bind", place, place] for place in KERNEL_SETTINGS if Path(place).exists()},
        **{str(path): ["--bind", str(path), str(path)] for path in work},
        data: ["--tmpfs", data],
        str(job): ["--bind", str(job), str(job)],
    }
    ordered = [mounts[path] for path in sorted(mounts, key=lambda path: len(Path(path).parts))]
    return [
        command.isolation.program,
        *("--die-with-parent", "--unshare-pid", "--as-pid-1", "--unshare-ipc", "--cap-drop", "ALL"),
        *(word for mount in ordered for word in mount),
        *("--remount-ro", data, "--chdir", "/", "--"),
    ]


def _start(command: Command, channel: int, complain_to: int) -> int:
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    # In the order of their numbers from 0: the channel is `CHANNEL`.
    descriptors = (nothing, nothing, complain_to, channel)
    return os.posix_spawn(
        command.isolation.program,
        [*arguments(command), *interpreter.command_line(NAMESPACE_INIT)],
        interpreter.environment(),
        file_actions=[(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(descriptors)],
    )


def _hand_over(command: Command, channel: socket.socket) -> None:
    """Command and standard streams. Where nobody is there to take them any more, the missing answer will tell."""
    told = {
        "argv": list(command.argv),
        "env": dict(command.env),
        "working_dir": command.working_dir,
        "work_mount": command.work_mount,
        "limits": list(command.limits),
    }
    try:
        socket.send_fds(channel, [b"\n"], [0, 1, 2])
        channel.sendall(json.dumps(told).encode() + b"\n")
    except (BrokenPipeError, ConnectionResetError):
        return


def _close_all_but(*kept: int) -> None:
    """The streams are the command's, and locks and pipes the shim's: whoever holds them counts as using them."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(nothing, target)
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2 and descriptor not in kept:
            try:
                os.close(descriptor)
            except OSError:
                # The one by which the list was read.
                continue


def _last_line(complaints: int) -> str:
    lines = os.read(complaints, COMPLAINT_BYTES).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "bwrap ended without a word"


class Answers:
    """What process 1 says, a line at a time; two may come at once."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._rest = b""

    def next(self) -> dict[str, Any] | None:
        """None where there is none, and none to come."""
        while b"\n" not in self._rest:
            try:
                chunk = self._channel.recv(4096)
            except (ConnectionResetError, BlockingIOError):
                return None
            if not chunk:
                return None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def last(self) -> dict[str, Any] | None:
        """The next one, once process 1 has ended: nothing is waited for."""
        self._channel.setblocking(False)
        return self.next()


def _status(bwrap: int, answers: Answers) -> int:
    """The wait status of the command; that of bwrap, where it was ended itself."""
    status = os.waitpid(bwrap, 0)[1]
    answer = answers.last()
    return int(answer["status"]) if answer else status


def _end_as(status: int) -> NoReturn:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        # One core is enough.
        prctl(PR_SET_DUMPABLE, 0)
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
