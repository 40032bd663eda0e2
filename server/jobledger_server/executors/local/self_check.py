"""Whether this machine can isolate jobs as the operator wants it: tried out when a server starts, with a real process.

The trial has a process of its own, since the server never forks. Standard library only.
"""

import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from jobledger_server.executors.local import bwrap, interpreter, landlock, seccomp
from jobledger_server.executors.local.child import Command, CommandError, become_command, start_child
from jobledger_server.executors.local.isolation import (
    BWRAP,
    LANDLOCK,
    NO_ISOLATION,
    NONE,
    Isolation,
    IsolationError,
    private_temp,
)
from jobledger_server.executors.local.process_tree import LINUX

TRIAL_SECONDS = 30.0
# What a job would try, and what it must be able to do: the first two lines must be in vain. The second only opens.
TRIAL = """
cat "$SECRET"; echo x > "$SECRET"; echo x > "$OUTSIDE"
( true >> /proc/sys/kernel/core_pattern && echo x > kernel )
set -e; echo x > own; echo x > "$TMPDIR/own"; echo x > /dev/null
"""
INSTEAD = {
    LANDLOCK: "Landlock takes Linux 6.2 with 'landlock' among the security modules (the kernel's option lsm=). "
    "Choose isolation bwrap (Debian package bubblewrap) or none",
    BWRAP: "bwrap comes with the Debian package bubblewrap, and takes a kernel that lets this user make namespaces "
    "(sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns). "
    "Choose isolation landlock or none",
}

logger = logging.getLogger(__name__)


def isolation_at(level: str, data_dir: Path) -> Isolation:
    """What attempts are to be started under at this level, tried out. May block for a second.

    Raises:
        IsolationError: it does not hold here; the message says what is missing, and what to choose instead.
    """
    if level == NONE:
        return NO_ISOLATION
    try:
        isolation = Isolation(level, str(data_dir.resolve()), _need(level))
        _try_out(isolation)
    except IsolationError as error:
        raise IsolationError(f"jobs can't be isolated by {level} here: {error}. {INSTEAD[level]}") from None
    version = f" (version {landlock.abi()} of it)" if level == LANDLOCK else f" ({isolation.program})"
    logger.info("jobs are isolated by %s%s", level, version)
    if level == LANDLOCK and not seccomp.available():
        logger.warning("jobs can change the limits of other processes: there is no filter for %s", os.uname().machine)
    return isolation


def _need(level: str) -> str:
    """What there must be. Returns the path of bwrap, where that is to be used."""
    if not LINUX:
        raise IsolationError("this is not Linux")
    if level == LANDLOCK:
        if landlock.abi() < landlock.LEAST_ABI:
            had = f"version {landlock.abi()} of it" if landlock.abi() else "none"
            raise IsolationError(f"the kernel has {had}, and version {landlock.LEAST_ABI} is needed")
        return ""
    program = shutil.which("bwrap")
    if program is None:
        raise IsolationError("there is no program bwrap in PATH")
    return str(Path(program).resolve())


def _try_out(isolation: Isolation) -> None:
    try:
        trial = subprocess.run(
            interpreter.command_line(__name__, *isolation),
            env=interpreter.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            errors="replace",
            timeout=TRIAL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise IsolationError(f"a trial was not over after {TRIAL_SECONDS:.0f} s") from None
    if trial.returncode:
        lines = trial.stderr.strip().splitlines()
        raise IsolationError(lines[-1] if lines else f"a trial ended with {trial.returncode}")


def main(*fields: str) -> None:
    """The trial. Ends with a message where the isolation does not hold."""
    isolation = Isolation(*fields)
    run_dir = Path(isolation.data_dir, "run")
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    outside = Path(isolation.data_dir).parent / f".jobledger-trial-{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory(dir=run_dir, prefix="isolation-") as place:
        try:
            complaint = _trial(isolation, Path(place), outside)
        except (CommandError, OSError) as error:
            complaint = str(error)
        finally:
            leaked = outside.exists()
            outside.unlink(missing_ok=True)
    if leaked:
        complaint = complaint or "a job could write outside of its directory"
    if complaint:
        sys.exit(complaint)


def _trial(isolation: Isolation, place: Path, outside: Path) -> str:
    """Runs a process as a job runs. Returns what does not hold, or nothing."""
    job_dir, secret = place / "job", place / "secret"
    (job_dir / "temp").mkdir(parents=True)
    secret.write_text("secret")
    with (place / "stdout").open("wb") as stdout, (place / "stderr").open("wb") as stderr:
        command = Command(
            argv=["/bin/sh", "-c", TRIAL],
            env={**private_temp(isolation, job_dir), "SECRET": str(secret), "OUTSIDE": str(outside)},
            working_dir=str(job_dir),
            stdin=os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC),
            stdout=stdout.fileno(),
            stderr=stderr.fileno(),
            limits=(),
            isolation=isolation,
            job_dir=str(job_dir),
        )
        pid = start_child(command, bwrap.become_keeper if isolation.level == BWRAP else become_command)
    ended_well = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    if (place / "stdout").read_text():
        return "a job could read the server's data directory"
    if secret.read_text() != "secret":
        return "a job could write to the server's data directory"
    if (job_dir / "kernel").exists():
        return "a job could change the settings of the kernel"
    if not ended_well or not (job_dir / "temp" / "own").exists():
        said = (place / "stderr").read_text(errors="replace").strip().splitlines()
        return f"a job could not write to its own directory ({said[-1] if said else 'without a word'})"
    return ""
