"""The process that shims are forked from: it has everything loaded, so that a start costs a fork and no more.

Reads paths of control directories from standard input, a line each, and answers each with the pid of its shim, or with
the negative errno where none could be forked. Ends when the input does; the shims go on. Standard library only.
"""

import gc
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from jobledger_server.executors.local import shim
from jobledger_server.executors.local.control_dir import ControlDir


def main() -> None:
    """Serves until the standard input ends."""
    for number in shim.NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    # Nobody here asks how a shim ended: the kernel may reap them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    while line := sys.stdin.readline():
        print(_fork(line.rstrip("\n")), flush=True)  # noqa: T201 - the answer


def _fork(control_dir: str) -> int:
    try:
        pid = os.fork()
    except OSError as error:
        return -(error.errno or 1)
    if pid == 0:
        _become_shim(control_dir)
    return pid


def _become_shim(control_dir: str) -> NoReturn:
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _redirect(control_dir)
        shim.main(control_dir)
        status = 0
    except SystemExit as refusal:
        sys.stderr.write(f"{refusal}\n")
    except BaseException:  # noqa: BLE001 - nothing may get back into the nursery's loop
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _redirect(control_dir: str) -> None:
    """Nothing in, nothing out, complaints to a file."""
    nothing = os.open(os.devnull, os.O_RDWR)
    errors = os.open(ControlDir(Path(control_dir)).shim_errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, source in enumerate((nothing, nothing, errors)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(errors)
