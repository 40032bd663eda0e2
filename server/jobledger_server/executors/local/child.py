"""Starts the first process of a job, and tells why one can't be started. Standard library only.

Where nothing but its streams and session must be set for it, libc starts it without a copy of this process. Else it is
fork and exec, and what is between them is done here. A process of the first kind outlives us if we are killed: until
whoever inherits it, the nursery, ends it.
"""

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from jobledger_server.core.real_paths import open_real_directory
from jobledger_server.executors.local import landlock
from jobledger_server.executors.local.isolation import BWRAP, LANDLOCK, NONE, Isolation, IsolationError, hides, writable
from jobledger_server.executors.local.limits import ResourceLimit
from jobledger_server.executors.local.process_tree import LINUX, PR_SET_PDEATHSIG, prctl

# Not the command's fault: another try later may do.
PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC})
# Whatever our own parents chose to ignore, as a shell does for `&`, is not for a job to inherit.
DEFAULT_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
EXEC_FAILED = 127
NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR})


class CommandError(Exception):
    """The command can't be started, however often one tries. The message says why and what to look at."""


class Command(NamedTuple):
    """What to start, where its standard streams go, and what the kernel is to hold it to.

    Attributes:
        working_dir: absolute, without links: one that has come there since is not followed.
        work_mount: what the working directory must turn out to be, as `mount_of` tells it; None for whatever is there.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    working_dir: str
    stdin: int
    stdout: int
    stderr: int
    limits: Sequence[ResourceLimit]
    isolation: Isolation
    job_dir: str
    work_mount: Sequence[int] | None = None

    @property
    def streams(self) -> tuple[int, int, int]:
        """What it is to have as standard input, output and error."""
        return self.stdin, self.stdout, self.stderr


class Failure(NamedTuple):
    """Why a command can't be run: what was being done, and the error (0: none of the system's)."""

    stage: str
    number: int
    text: str


# What a child does with the command, and with where it is to say that it can't. See `fork_child`.
Become = Callable[[Command, int], Failure]


def start_child(command: Command, become: Become) -> int:
    """Starts the process in a session of its own. Returns its pid once it runs the command.

    Args:
        become: as for `fork_child`.

    Raises:
        CommandError: it can't be run.
        OSError: nothing was started, for want of processes, memory or files.
    """
    if LINUX and command.isolation.level == NONE and not command.limits:
        # Elsewhere nobody inherits what we leave, and not every libc knows of sessions.
        with contextlib.suppress(NotImplementedError):
            return _spawn(command)
    pid, failure = fork_child(command, become)
    if failure:
        _raise(command, failure)
    return pid


def _spawn(command: Command) -> int:
    """The same, where nothing else has to be set. A copy of this process would cost milliseconds.

    Raises:
        NotImplementedError: this libc can't start a session.
    """
    stage = "working_dir"
    try:
        work = _working_dir(command)
        os.fchdir(work)
        os.close(work)
        stage = "exec"
        return _spawn_first_of(_programs(command), command)
    except OSError as error:
        _raise(command, Failure(stage, error.errno or 0, error.strerror or str(error)))
    except ValueError as error:
        _raise(command, Failure(stage, 0, str(error)))
    finally:
        os.chdir("/")


def _programs(command: Command) -> list[str]:
    """Where the program may be, as `os.execvpe` looks for it."""
    program = command.argv[0]
    if os.path.dirname(program):  # noqa: PTH120 - of "./program" it is ".", which a Path forgets
        return [program]
    places = [os.path.join(place, program) for place in os.get_exec_path(dict(command.env))]  # noqa: PTH118
    return [place for place in places if os.path.lexists(place)]


def _spawn_first_of(programs: Sequence[str], command: Command) -> int:
    """The first that can be run.

    Raises:
        OSError: why none can be: of the first that is there, if one is.
    """
    streams = [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in enumerate(command.streams)]
    refusal: OSError | None = None
    for program in programs:
        try:
            return os.posix_spawn(
                program,
                list(command.argv),
                dict(command.env),
                file_actions=streams,
                setsid=True,
                setsigmask=(),
                setsigdef=DEFAULT_SIGNALS,
            )
        except OSError as error:
            if refusal is None or refusal.errno in NOT_THERE:
                refusal = error
    raise refusal or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def fork_child(command: Command, become: Become) -> tuple[int, Failure | None]:
    """The pid of a child that runs the command, or why it can't.

    Args:
        become: turns the child into the command. Its second argument closes when that has come about: by itself where
            the process is replaced. Returns only to say why it can't be done.

    Raises:
        OSError: there are no processes, memory or files for it.
    """
    report, report_to = os.pipe()
    parent = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            _run(command, become, report_to, parent)
    finally:
        os.close(report_to)
    with os.fdopen(report, "rb") as pipe:
        failure = pipe.read()
    if not failure:
        return pid, None
    os.waitpid(pid, 0)
    return pid, Failure(*json.loads(failure))


def _run(command: Command, become: Become, report_to: int, parent: int) -> NoReturn:
    """The child: becomes the command, or reports why not. Never returns into the parent's code."""
    try:
        _die_with(parent)
        os.write(report_to, json.dumps(become(command, report_to)).encode())
    finally:
        os._exit(EXEC_FAILED)


def _die_with(parent: int) -> None:
    """From here on the kernel ends this process with its parent. One that has ended already would not be noticed."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EXEC_FAILED)


def become_command(command: Command, _report_to: int) -> Failure:
    """Replaces this process by the command. Returns only to say why it can't."""
    stage = "working_dir"
    try:
        # Before the limits: the job's own open files are all that they are to count.
        work = _working_dir(command)
        stage = "prepare"
        leave_parent(command)
        stage = "isolation"
        if command.isolation.level == LANDLOCK:
            _restrict(command, work)
        stage = "working_dir"
        os.fchdir(work)
        stage = "exec"
        os.execvpe(command.argv[0], list(command.argv), dict(command.env))  # noqa: S606 - no shell is the point
    except OSError as error:
        return Failure(stage, error.errno or 0, error.strerror or str(error))
    except (ValueError, IsolationError) as error:
        return Failure(stage, 0, str(error))


def mount_of(directory: int) -> list[int]:
    """Tells an open directory from others, and from itself where it is mounted to be read only."""
    status = os.fstat(directory)
    return [status.st_dev, status.st_ino, os.fstatvfs(directory).f_flag & os.ST_RDONLY]


def _working_dir(command: Command) -> int:
    """The working directory, open: whatever comes in its place from now on is not what the command gets."""
    work = open_real_directory(Path(command.working_dir))
    if command.work_mount is not None and mount_of(work) != list(command.work_mount):
        raise IsolationError("something else was put in its place while the job was started")
    return work


def _restrict(command: Command, work: int) -> None:
    job, *others = writable(command.isolation, command.job_dir, command.working_dir)
    own = open_real_directory(job)
    landlock.restrict(hidden=Path(command.isolation.data_dir), writable=[own, work] if others else [own])
    os.close(own)


def leave_parent(command: Command) -> None:
    """Own session, default signals, standard streams, limits; all other descriptors close by themselves."""
    os.setsid()
    for number in DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for target, source in enumerate(command.streams):
        os.dup2(source, target)
    for limit in command.limits:
        resource.setrlimit(limit.resource, (limit.soft, limit.hard))


def _raise(command: Command, failure: Failure) -> NoReturn:
    stage, number, text = failure
    if stage == "prepare" or number in PASSING:
        raise OSError(number, text)
    if stage == "isolation":
        raise CommandError(f"Can't be isolated ({command.isolation.level}): {text}")
    if stage == "working_dir":
        raise CommandError(f"Can't enter the working directory {command.working_dir!r}: {text}")
    raise CommandError(_exec_message(command, number, text))


def _exec_message(command: Command, number: int, text: str) -> str:
    program = command.argv[0]
    search = command.env.get("PATH", os.defpath)
    found = Path(command.working_dir, program) if "/" in program else shutil.which(program, path=search) or ""
    place = "" if "/" in program else f" (looked in PATH: {search})"
    exists = bool(found) and Path(found).exists()
    if exists and _is_hidden(command, number, Path(found)):
        return f"Can't run {program!r}: {found} lies outside what isolation {command.isolation.level!r} lets a job read"
    if number in NOT_THERE and not exists:
        return f"No such file: {program!r}{place}"
    reasons = {
        errno.ENOENT: "the interpreter that its first line names does not exist",
        errno.EACCES: f"permission denied; is it executable?{place}",
        errno.ENOEXEC: "not a program; a script begins with a line such as #!/bin/sh",
        errno.E2BIG: "arguments and environment are too long for this system: pass on what is large by standard input "
        "or in a file",
    }
    reason = "it is a directory" if exists and Path(found).is_dir() else reasons.get(number, text)
    return f"Can't run {program!r}: {reason}"


def _is_hidden(command: Command, number: int, program: Path) -> bool:
    """Whether it is the isolation that kept the command from a program that is there."""
    if program.is_dir():
        return False
    if command.isolation.level == LANDLOCK:
        return number == errno.EACCES and os.access(program, os.X_OK)
    hidden = command.isolation.level == BWRAP and number in {errno.ENOENT, errno.EACCES}
    return hidden and hides(command.isolation, command.job_dir, command.working_dir, program)
