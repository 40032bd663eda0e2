"""The blocking client: the verbs of `Client`, run on an event loop in a thread of their own. No logic lives here."""

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, closing, contextmanager
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

from jobledger.client import Client

P = ParamSpec("P")
T = TypeVar("T")

_END: Final[Any] = object()


class LoopThread:
    """An event loop in a thread, for as long as the context lasts."""

    def __init__(self) -> None:
        # With a factory it does not make the loop that of the thread that is here.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._serve, name="jobledger", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        # The end runs the loop once more, which can't be done where another one runs, as it may in the caller's thread.
        with self._runner:
            self._loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine. When the wait is interrupted, the coroutine is cancelled."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()


class _Pull(Generic[T]):
    """Takes items from an asynchronous generator, one at a time."""

    def __init__(self, items: AsyncGenerator[T, None]) -> None:
        self._items = items
        self._lock = asyncio.Lock()

    async def next(self) -> T:
        async with self._lock:
            return await anext(self._items, _END)

    async def close(self) -> None:
        # An interrupted `next` may still be unwinding, and a generator that runs can't be closed.
        async with self._lock:
            await self._items.aclose()


def _blocking(
    verb: Callable[Concatenate[Client, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["SyncClient", P], T]:
    def call(client: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client.thread.run(verb(client.inner, *args, **kwargs))

    return functools.update_wrapper(call, verb)


def _iterating(
    verb: Callable[Concatenate[Client, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate["SyncClient", P], Generator[T, None, None]]:
    def iterate(client: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        pull = _Pull(verb(client.inner, *args, **kwargs))
        try:
            while (item := client.thread.run(pull.next())) is not _END:
                yield item
        finally:
            client.thread.run(pull.close())

    return functools.update_wrapper(iterate, verb)


def _flat(
    verb: Callable[P, AsyncGenerator[Any, None]],
    pages: Callable[Concatenate[Client, P], AsyncGenerator[Sequence[T], None]],
) -> Callable[Concatenate["SyncClient", P], Generator[T, None, None]]:
    """The same as `_iterating(verb)`, by `pages` of what it gives: an item each costs a change of threads."""
    pull = _iterating(pages)

    def iterate(client: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        with closing(pull(client, *args, **kwargs)) as found:
            for page in found:
                yield from page

    return functools.update_wrapper(iterate, verb)


def _connecting(
    connect: Callable[P, AbstractAsyncContextManager[Client]],
) -> Callable[P, AbstractContextManager["SyncClient"]]:
    @contextmanager
    def connected(*args: P.args, **kwargs: P.kwargs) -> Generator["SyncClient", None, None]:
        with LoopThread() as thread:
            connection = connect(*args, **kwargs)
            client = thread.run(_enter(connection))
            try:
                yield SyncClient(client, thread)
            finally:
                thread.run(_exit(connection))

    return connected


async def _enter(connection: AbstractAsyncContextManager[Client]) -> Client:
    return await connection.__aenter__()


async def _exit(connection: AbstractAsyncContextManager[Client]) -> None:
    await connection.__aexit__(None, None, None)


class SyncClient:
    """A connection to a server, for code without asyncio. May be shared by threads.

    Each verb takes, returns and raises what `Client`'s of the same name does; iterators are plain ones.

    Example:
        with SyncClient.connect() as client:
            job = client.wait(client.submit(["true"]).job_id)
    """

    def __init__(self, inner: Client, thread: LoopThread) -> None:
        self.inner = inner
        self.thread = thread

    connect = staticmethod(_connecting(Client.connect))

    submit = _blocking(Client.submit)
    get = _blocking(Client.get)
    job_types = _blocking(Client.job_types)
    list = _blocking(Client.list)
    iterate = _iterating(Client.iterate)
    wait = _blocking(Client.wait)
    cancel = _blocking(Client.cancel)
    cancel_many = _blocking(Client.cancel_many)
    send_input = _blocking(Client.send_input)
    delete = _blocking(Client.delete)

    logs = _blocking(Client.logs)
    iter_logs = _flat(Client.iter_logs, Client.iter_log_pages)
    iter_log_pages = _iterating(Client.iter_log_pages)
    tail_logs = _flat(Client.tail_logs, Client.tail_log_pages)
    tail_log_pages = _iterating(Client.tail_log_pages)
    log_content = _iterating(Client.log_content)

    artifacts = _blocking(Client.artifacts)
    artifact_content = _iterating(Client.artifact_content)
    download_artifact = _blocking(Client.download_artifact)

    receipt = _blocking(Client.receipt)
    signing_keys = _blocking(Client.signing_keys)
    checkpoint = _blocking(Client.checkpoint)
    inclusion_proof = _blocking(Client.inclusion_proof)
    consistency_proof = _blocking(Client.consistency_proof)

    events = _iterating(Client.events)

    status = _blocking(Client.status)
    collect_garbage = _blocking(Client.collect_garbage)
    whoami = _blocking(Client.whoami)
    tokens = _blocking(Client.tokens)
    create_token = _blocking(Client.create_token)
    revoke_token = _blocking(Client.revoke_token)
    rotate_token = _blocking(Client.rotate_token)
    audit_entries = _blocking(Client.audit_entries)
