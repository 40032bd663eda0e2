"""Runs attempts as local processes, each under a shim of its own that outlives this server.

Shims wake the server through a FIFO, and through their end by a pidfd where the platform has them. Both may be missed;
a look at what changed every second makes up for it.
"""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from jobledger_server.core.ports import Clock, EndReason, ExecutorListener, Launch, Outcome, Running
from jobledger_server.executors.local.attempt import Attempt, News, View
from jobledger_server.executors.local.awaiting import cancelled, within
from jobledger_server.executors.local.child import PASSING
from jobledger_server.executors.local.guarded_files import FOREIGN, open_fifo
from jobledger_server.executors.local.isolation import NO_ISOLATION, Isolation
from jobledger_server.executors.local.lost import GONE, OVERDUE, UNKILLABLE, bury
from jobledger_server.executors.local.pidfd import ExitWatch
from jobledger_server.executors.local.remains import end_remains, wake_stopped
from jobledger_server.executors.local.spawner import Spawner
from jobledger_server.executors.local.wakes import Wakes

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 8
TICK_SECONDS = 1.0
# How long a look waits for what else there may be to see.
SOON_SECONDS = 0.02
# How long a supervisor may take to start its job, and what is killed to die.
HUNG_SECONDS, CLEAR_SECONDS, CLEAR_INTERVAL = 10.0, 5.0, 0.02
# Between two tries to remove what could not be removed.
REMOVE_SECONDS = 30.0
REMOVED = "Its control directory was removed while it ran"
NO_TRACE = "Its supervisor left no trace"
HUNG = "Its supervisor hung before it had started it"

logger = logging.getLogger(__name__)


class LocalExecutor:
    """Implements `ports.Executor`. Leaving it stops watching; jobs go on, and another one finds them."""

    def __init__(
        self, *, data_dir: Path, listener: ExecutorListener, clock: Clock, isolation: Isolation = NO_ISOLATION
    ) -> None:
        """Executor over `data_dir`, of which it uses `control/` and `run/`; one at a time.

        Args:
            isolation: what the attempts that it starts run under.
        """
        self._control_root = data_dir / "control"
        self._run_dir = data_dir / "run"
        self._listener = listener
        self._clock = clock
        self._isolation = isolation
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._spawner = Spawner()
        # Their own: what takes long elsewhere, such as copies of artifacts, must not hold up a cancel.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="jobledger-control")
        self._tasks = contextlib.AsyncExitStack()
        # Attempts whose end is stored, and whose control directory could not be removed.
        self._unremoved: set[tuple[str, int]] = set()

    async def __aenter__(self) -> Self:
        self._tasks.push_async_callback(asyncio.to_thread, self._threads.shutdown)
        await self._tasks.enter_async_context(self._spawner)
        fifo = await asyncio.to_thread(self._make_directories)
        loop = asyncio.get_running_loop()
        self._tasks.callback(os.close, fifo)
        loop.add_reader(fifo, self._read_wakes, Wakes(fifo))
        self._tasks.callback(loop.remove_reader, fifo)
        self._tasks.push_async_callback(self._stop_followers)
        ticker = asyncio.create_task(self._tick())
        self._tasks.push_async_callback(cancelled, ticker)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.aclose()

    def _make_directories(self) -> int:
        for directory in (self._control_root, self._run_dir):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return open_fifo(self._run_dir / "wake")

    async def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """For what looks into control directories, and is done at once. What may take seconds goes elsewhere."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *args, **kwargs))

    # --- the port ---

    async def start(self, launch: Launch) -> Running | Outcome:
        """See `ports.Executor.start`."""
        attempt = self._attempt(launch.job_id, launch.attempt)
        async with attempt.starting:
            if not await self._in_thread(attempt.prepare, launch, self._isolation):
                known = await self._settle(attempt)
                if known is not None:
                    return known
                await self._in_thread(attempt.prepare, launch, self._isolation, known=True)
            attempt.changed.clear()
            shim = await self._spawner.spawn(attempt.control.path, launch.secret_env)
            with ExitWatch(shim, partial(_look_soon, attempt)) as spawned:
                # There is nothing to see before it has said something, or the nursery that it has ended.
                await within(TICK_SECONDS, attempt.changed)
                known = await self._settle(attempt, spawned)
            if known is None:
                raise OSError(errno.EAGAIN, await self._in_thread(attempt.complaint))
            return known

    async def find(self, job_id: str, attempt: int) -> Running | Outcome | None:
        """See `ports.Executor.find`."""
        sought = self._attempt(job_id, attempt)
        async with sought.starting:
            await self._in_thread(sought.refuse_newer)
            return await self._settle(sought)

    async def end_unknown(self, job_id: str, attempt: int) -> Outcome:
        """See `ports.Executor.end_unknown`."""
        sought = self._attempt(job_id, attempt)
        async with sought.starting:
            return self._lost(NO_TRACE, survived=not await self._cleared(sought))

    async def cancel(self, job_id: str, attempt: int, *, grace_seconds: float) -> None:
        """See `ports.Executor.cancel`."""
        unwanted = self._attempt(job_id, attempt)
        async with unwanted.writing:
            await self._in_thread(unwanted.request_cancel, grace_seconds)

    async def send_input(self, job_id: str, attempt: int, data: bytes, *, close: bool) -> int:
        """See `ports.Executor.send_input`."""
        reader = self._attempt(job_id, attempt)
        async with reader.writing:
            return await self._in_thread(reader.queue_input, data, close=close)

    def queued_inputs(self, job_id: str, attempt: int) -> int:
        """See `ports.Executor.queued_inputs`."""
        known = self._attempts.get((job_id, attempt))
        return known.queued if known else 0

    async def release(self, job_id: str, attempt: int) -> None:
        """See `ports.Executor.release`."""
        released = self._attempt(job_id, attempt)
        async with released.starting, released.writing:
            if released.follower:
                await cancelled(released.follower)
            try:
                await asyncio.to_thread(released.remove)
            except FileNotFoundError:
                pass
            except OSError as error:
                # No files left just now, perhaps. It is no reason to hold up what else follows from the end.
                logger.warning("%s can't be removed just now: %s", released.control.path, error)
                self._unremoved.add((job_id, attempt))
            self._attempts.pop((job_id, attempt), None)

    async def release_others(self, kept: Collection[tuple[str, int]]) -> None:
        """See `ports.Executor.release_others`."""
        for directory in await asyncio.to_thread(os.listdir, self._control_root):
            job_id, _, number = directory.rpartition(".")
            if number.isdecimal() and (job_id, int(number)) not in kept:
                await self.release(job_id, int(number))

    def _attempt(self, job_id: str, number: int) -> Attempt:
        key = (job_id, number)
        if key not in self._attempts:
            self._attempts[key] = Attempt(job_id=job_id, number=number, control_root=self._control_root)
        return self._attempts[key]

    # --- finding out ---

    async def _settle(self, attempt: Attempt, spawned: ExitWatch | None = None) -> Running | Outcome | None:
        """What is certain of an attempt; waits while its shim, `spawned` just now perhaps, is about to start it."""
        hung_from = self._clock.monotonic() + HUNG_SECONDS
        while True:
            if not attempt.follower:
                attempt.changed.clear()
            lives = spawned is not None and not spawned.ended()
            view = await self._in_thread(attempt.view)
            known = await self._certain(attempt, view, new=spawned is not None)
            if known is not None:
                return known
            if not view.alive and not lives:
                if not view.begun:
                    return None
                told = await self._bury(attempt)
                known = await self._certain(attempt, await self._in_thread(attempt.view), new=spawned is not None)
                if known is not None or told is not None:
                    return known or told
            if self._clock.monotonic() > hung_from:
                logger.warning("%s, attempt %d: its supervisor hangs, and is killed", attempt.job_id, attempt.number)
                # Whoever takes its lock again and again must not hold up a server that starts for ever.
                if not await self._cleared(attempt) or self._clock.monotonic() > hung_from + 2 * CLEAR_SECONDS:
                    return self._lost(HUNG, survived=True)
                continue
            if not await within(TICK_SECONDS, attempt.changed):
                await asyncio.to_thread(_wake_stopped, attempt)

    async def _certain(self, attempt: Attempt, view: View, *, new: bool) -> Running | Outcome | None:
        """What a look shows for certain of an attempt, of which this is one of the first looks where it is new."""
        # One that has ended by now, and said how far it was, is told of as one that runs: else that would be lost.
        ended_untold = new and view.running is not None and view.progressed
        if view.outcome and not ended_untold:
            return view.outcome
        if view.running and (view.alive or ended_untold):
            self._follow(attempt, view.shim)
            return view.running
        if new and not view.written:
            # By the job, which was quicker than we. So it has begun, and must not begin again.
            return self._lost(REMOVED, survived=not await self._cleared(attempt))
        return None

    def _follow(self, attempt: Attempt, shim: int | None) -> None:
        if attempt.follower is None:
            attempt.follower = asyncio.create_task(self._tell_until_ended(attempt, shim))

    async def _tell_until_ended(self, attempt: Attempt, shim: int | None) -> None:
        soon = partial(_look_soon, attempt)
        # Most short jobs have ended by then, and all that there is to tell of them is seen in one look. Likewise it is
        # the nursery that tells of the end of what a shim had below it; its own end is a hint for where there is none.
        soon()
        with ExitWatch(shim, soon):
            outcome = None
            while outcome is None:
                await attempt.changed.wait()
                attempt.changed.clear()
                try:
                    outcome = await self._tell_news(attempt)
                except Exception:
                    # No files or no disk left just now, or worse. Nobody else would ever tell of its end: go on. The
                    # next tick finds everything changed.
                    attempt.look_anew()
                    logger.exception("Can't look after %s, attempt %d; trying again", attempt.job_id, attempt.number)
        attempt.follower = None
        self._listener.attempt_ended(attempt.job_id, attempt.number, outcome)

    async def _tell_news(self, attempt: Attempt) -> Outcome | None:
        try:
            news: News = await self._in_thread(attempt.news)
        except OSError as error:
            if error.errno not in FOREIGN:
                raise
            # The job has put something in place of its directory, or shut us out: nobody would ever see its end.
            return await self._bury(attempt)
        if news.progress:
            self._listener.job_progressed(attempt.job_id, attempt.number, news.progress)
        if news.declared:
            self._listener.artifacts_declared(attempt.job_id, attempt.number, news.declared)
        if news.log_grew:
            self._listener.log_grew(attempt.job_id)
        if news.view.outcome:
            return news.view.outcome
        if not news.view.begun:
            return self._lost(REMOVED, survived=not await self._cleared(attempt))
        if attempt.overdue():
            await self._in_thread(attempt.give_up)
        if attempt.overdue() or not news.view.alive:
            return await self._bury(attempt)
        return None

    # --- bringing about the end ---

    async def _bury(self, attempt: Attempt) -> Outcome | None:
        """Ends what is left of an attempt. Returns how that is to be told; None: its lock was taken meanwhile."""
        survived = not await self._cleared(attempt)
        try:
            await asyncio.to_thread(bury, attempt.control, self._clock.now(), survived=survived)
        except OSError as error:
            if error.errno in PASSING:
                raise
            # The job has put something in the way. That must not keep it from being over.
            return self._lost(GONE, survived=survived)
        view = await self._in_thread(attempt.view)
        if view.outcome is None and (survived or not view.alive):
            # What stands in its directory still makes no sense, and may never: it is not waited for.
            return self._lost(OVERDUE if survived else GONE, survived=survived)
        asyncio.get_running_loop().call_later(TICK_SECONDS, attempt.changed.set)
        return view.outcome

    async def _cleared(self, attempt: Attempt) -> bool:
        """Ends whatever lives of an attempt, its shim as well. Returns whether nothing is left."""
        deadline = self._clock.monotonic() + CLEAR_SECONDS
        while await asyncio.to_thread(end_remains, attempt.traces()):
            if self._clock.monotonic() > deadline:
                return False
            await asyncio.sleep(CLEAR_INTERVAL)
        return True

    def _lost(self, message: str, *, survived: bool) -> Outcome:
        """An end of which nothing more is known, and which stands nowhere."""
        reason = EndReason.UNKILLABLE if survived else EndReason.LOST
        text = f"{UNKILLABLE}. {message}" if survived else message
        return Outcome(reason=reason, message=text, ended_at=self._clock.now())

    # --- being woken ---

    def _read_wakes(self, wakes: Wakes) -> None:
        for key in wakes.read():
            if attempt := self._attempts.get(key):
                attempt.changed.set()

    async def _tick(self) -> None:
        remove_from = 0.0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            followed = [attempt for attempt in self._attempts.values() if attempt.follower]
            for attempt in await self._in_thread(_look_after, followed):
                attempt.changed.set()
            if self._unremoved and self._clock.monotonic() >= remove_from:
                remove_from = self._clock.monotonic() + REMOVE_SECONDS
                unremoved, self._unremoved = self._unremoved, set()
                for key in unremoved:
                    await self.release(*key)

    async def _stop_followers(self) -> None:
        for attempt in list(self._attempts.values()):
            if attempt.follower:
                await cancelled(attempt.follower)


def _look_soon(attempt: Attempt) -> None:
    asyncio.get_running_loop().call_later(SOON_SECONDS, attempt.changed.set)


def _wake_stopped(attempt: Attempt) -> None:
    wake_stopped(attempt.traces())


def _look_after(attempts: list[Attempt]) -> list[Attempt]:
    """Has stopped shims go on. Returns those that should be looked at; among them those that can't be judged."""
    changed = []
    for attempt in attempts:
        try:
            if attempt.look_after():
                changed.append(attempt)
        except Exception:  # noqa: BLE001 - the follower meets it again, and says so
            changed.append(attempt)
    return changed
