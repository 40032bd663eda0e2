"""Starts the first process of a job: fork and exec, told apart from each other's failures. Standard library only."""

import errno
import json
import os
import resource
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from jobledger_server.executors.local.limits import ResourceLimit
from jobledger_server.executors.local.process_tree import PR_SET_PDEATHSIG, prctl

# Not the command's fault: another try later may do.
PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC})
DEFAULT_SIGNALS = (
    signal.SIGPIPE,
    signal.SIGXCPU,
    signal.SIGXFSZ,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGCHLD,
)
EXEC_FAILED = 127


class CommandError(Exception):
    """The command can't be started, however often one tries. The message says why and what to look at."""


class Command(NamedTuple):
    """What to start, where its standard streams go, and what the kernel is to hold each of its processes to."""

    argv: Sequence[str]
    env: Mapping[str, str]
    working_dir: str
    stdin: int
    stdout: int
    stderr: int
    limits: Sequence[ResourceLimit]


def start_child(command: Command) -> int:
    """Starts the process in a session of its own; it dies with this one. Returns its pid once it runs the command.

    Raises:
        CommandError: it can't be run.
        OSError: nothing was started, for want of processes, memory or files.
    """
    report, report_to = os.pipe()
    try:
        pid = os.fork()
        if pid == 0:
            _run(command, report_to)
    finally:
        os.close(report_to)
    with os.fdopen(report, "rb") as pipe:
        failure = pipe.read()
    if failure:
        os.waitpid(pid, 0)
        _raise(command, **json.loads(failure))
    return pid


def _run(command: Command, report_to: int) -> NoReturn:
    """The child: becomes the command, or reports why not. Never returns into the parent's code."""
    stage = "prepare"
    try:
        _leave_parent(command)
        stage = "working_dir"
        os.chdir(command.working_dir)
        stage = "exec"
        os.execvpe(command.argv[0], list(command.argv), dict(command.env))  # noqa: S606 - no shell is the point
    except OSError as error:
        _report(report_to, stage=stage, number=error.errno, text=error.strerror)
    except ValueError as error:
        _report(report_to, stage=stage, number=0, text=str(error))
    finally:
        os._exit(EXEC_FAILED)


def _report(report_to: int, **failure: object) -> None:
    os.write(report_to, json.dumps(failure).encode())


def _leave_parent(command: Command) -> None:
    """Own session, default signals, standard streams, limits; all other descriptors close by themselves."""
    os.setsid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for target, source in enumerate((command.stdin, command.stdout, command.stderr)):
        os.dup2(source, target)
    for limit in command.limits:
        resource.setrlimit(limit.resource, (limit.soft, limit.hard))


def _raise(command: Command, *, stage: str, number: int, text: str) -> NoReturn:
    if stage == "prepare" or number in PASSING:
        raise OSError(number, text)
    if stage == "working_dir":
        raise CommandError(f"Can't enter the working directory {command.working_dir!r}: {text}")
    raise CommandError(_exec_message(command, number, text))


def _exec_message(command: Command, number: int, text: str) -> str:
    program = command.argv[0]
    search = command.env.get("PATH", os.defpath)
    found = Path(command.working_dir, program) if "/" in program else shutil.which(program, path=search) or ""
    place = "" if "/" in program else f" (looked in PATH: {search})"
    exists = bool(found) and Path(found).exists()
    if number in {errno.ENOENT, errno.ENOTDIR} and not exists:
        return f"No such file: {program!r}{place}"
    reasons = {
        errno.ENOENT: "the interpreter that its first line names does not exist",
        errno.EACCES: f"permission denied; is it executable?{place}",
        errno.ENOEXEC: "not a program; a script begins with a line such as #!/bin/sh",
        errno.E2BIG: "arguments and environment are too long",
    }
    reason = "it is a directory" if exists and Path(found).is_dir() else reasons.get(number, text)
    return f"Can't run {program!r}: {reason}"
