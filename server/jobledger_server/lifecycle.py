"""Beginning and end of a server: the lock on its data, the file that says where it listens, the two-stage stop."""

import asyncio
import fcntl
import gc
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from jobledger_server.access.data_dir import check_data_dir


class StartError(Exception):
    """The server can't start; the message says why, and what to do."""


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Holds the directory for this server alone, until the block or the process ends.

    Raises:
        StartError: another server has it, or it can't be made.
        PrivateFileError: it belongs to someone else, or others may have put there what is in it.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(data_dir)
        descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"the data directory {data_dir} can't be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise StartError(
                f"another server (process {holder}) uses {data_dir}: stop it, or choose another --data-dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _make_private(data_dir: Path) -> None:
    check_data_dir(data_dir, owner=os.geteuid())
    if data_dir.stat().st_mode & 0o077:
        data_dir.chmod(0o700)
        # Whoever could write to it until now may have been quicker than the first look.
        check_data_dir(data_dir, owner=os.geteuid())


@contextmanager
def announced(path: Path, endpoints: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Says in a file that only its owner can read where the server listens, as long as it does.

    The block gets what writes it anew.
    """
    _announce(path, endpoints)
    try:
        yield partial(_announce, path)
    finally:
        path.unlink(missing_ok=True)


def _announce(path: Path, endpoints: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(endpoints, file, indent=2)
        file.write("\n")
    temporary.rename(path)


def settle_memory() -> None:
    """To be called when all is loaded: keeps the garbage collector from stalls that calls and streams would notice.

    What is there now stays, and is never looked at again. A server makes little garbage in cycles, and thousands of
    streams many short-lived objects, at each 700 of which Python would look for some.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class StartStoppedError(Exception):
    """The server was told to stop before its start was over."""


@contextmanager
def given_up(stop: asyncio.Event) -> Iterator[None]:
    """Cancels what the block waits for as soon as the stop is asked for.

    Raises:
        StartStoppedError: that happened.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a start is given up by its task, and there is none")
    cancelled = False

    def cancel(stopped: "asyncio.Task[bool]") -> None:
        nonlocal cancelled
        if not stopped.cancelled():
            cancelled = task.cancel()

    watching = asyncio.ensure_future(stop.wait())
    watching.add_done_callback(cancel)
    try:
        yield
    except asyncio.CancelledError:
        if cancelled and task.uncancel() == 0:
            raise StartStoppedError from None
        raise
    finally:
        watching.remove_done_callback(cancel)
        watching.cancel()


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM or SIGINT sets; the second one ends the process at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        with suppress(RuntimeError):
            for number in numbers:
                loop.remove_signal_handler(number)


@contextmanager
def on_hangup(act: Callable[[], None]) -> Iterator[None]:
    """Has SIGHUP do this, in place of ending the process."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, act)
    try:
        yield
    finally:
        with suppress(RuntimeError):
            loop.remove_signal_handler(signal.SIGHUP)
