"""Tokens in memory: no call sees one that was changed before it began, and guessing fills nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from jobledger.v1.events_pb2 import Event
from jobledger_server.access.cached_tokens import CachedTokens
from jobledger_server.core.changes import settled
from jobledger_server.core.ports import StoreUnavailableError, TokenChange, TokenRecord
from jobledger_server.stores.sqlite import SqliteStore
from support.records import NOW, a_token


class Watched:
    """A store whose reads are counted, and can be held up between their answer and its delivery."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.reads: list[str] = []
        self.answered = asyncio.Event()
        self.deliver = asyncio.Event()
        self.deliver.set()
        self.broken = False

    async def token(self, token_id: str) -> TokenRecord | None:
        self.reads.append(token_id)
        record = await self.store.token(token_id)
        self.answered.set()
        await self.deliver.wait()
        return record

    async def put_token(self, token: TokenRecord, events: Sequence[Event] = ()) -> None:
        await self.store.put_token(token, events)
        if self.broken:
            raise StoreUnavailableError("stored, but nobody knows")

    async def change_token(
        self, token_id: str, decide: Callable[[TokenRecord], TokenChange | None]
    ) -> TokenRecord | None:
        return await self.store.change_token(token_id, decide)

    async def note_token_use(self, token_id: str, at: int) -> None:
        await self.store.note_token_use(token_id, at)

    async def tokens(self) -> Sequence[TokenRecord]:
        return await self.store.tokens()


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    async with SqliteStore(tmp_path / "jobledger.db") as store:
        await store.put_token(a_token())
        yield Watched(store)


async def test_the_store_is_asked_once(watched: Watched) -> None:
    tokens = CachedTokens(watched)
    assert await tokens.token("token") == await tokens.token("token") == a_token()
    assert watched.reads == ["token"]


async def test_a_change_counts_from_the_next_call_on(watched: Watched) -> None:
    tokens, revoked = CachedTokens(watched), replace(a_token(), revoked_at=NOW)
    await tokens.token("token")
    await tokens.put_token(revoked)
    assert await tokens.token("token") == revoked


async def test_a_change_whose_outcome_is_unknown_is_read_anew(watched: Watched) -> None:
    tokens, revoked = CachedTokens(watched), replace(a_token(), revoked_at=NOW)
    await tokens.token("token")
    watched.broken = True
    with pytest.raises(StoreUnavailableError):
        await tokens.put_token(revoked)
    assert await tokens.token("token") == revoked


async def test_what_was_read_before_a_change_is_not_kept_after_it(watched: Watched) -> None:
    tokens, revoked = CachedTokens(watched), replace(a_token(), revoked_at=NOW)
    watched.deliver.clear()
    reading = asyncio.create_task(tokens.token("token"))
    await watched.answered.wait()
    await tokens.put_token(revoked)
    watched.deliver.set()
    assert await reading == a_token(), "it began before the change"
    assert await tokens.token("token") == revoked


async def test_ids_that_nobody_has_are_not_remembered(watched: Watched) -> None:
    tokens = CachedTokens(watched)
    assert await tokens.token("guess") is None
    assert await tokens.token("guess") is None
    assert watched.reads == ["guess", "guess"]


async def test_those_used_last_are_kept(watched: Watched) -> None:
    tokens = CachedTokens(watched, most=2)
    for name in ("a", "b", "c"):
        await tokens.put_token(replace(a_token(), token_id=name))
    for name in ("a", "b", "a", "c", "a", "b"):
        await tokens.token(name)
    assert watched.reads == ["a", "b", "c", "b"]


async def test_a_use_is_noted_at_once_and_never_taken_back(watched: Watched) -> None:
    tokens = CachedTokens(watched)
    await tokens.token("token")
    await tokens.note_token_use("token", NOW + 5)
    await tokens.note_token_use("token", NOW + 3)
    known = await tokens.token("token")
    assert known is not None
    assert known.last_used_at == NOW + 5
    assert await watched.store.token("token") == known


async def test_a_change_whose_caller_leaves_counts_once_it_is_stored(watched: Watched) -> None:
    """Else what is read between would stay, and with it a token that was revoked."""
    tokens, told = CachedTokens(watched), list[TokenRecord]()
    tokens.on_change(told.append)
    storing, stored = asyncio.Event(), asyncio.Event()
    change = watched.store.change_token

    async def held_up(token_id: str, decide: Callable[[TokenRecord], TokenChange | None]) -> TokenRecord | None:
        storing.set()
        await stored.wait()
        return await change(token_id, decide)

    watched.change_token = held_up  # type: ignore[method-assign]
    revoking = asyncio.create_task(
        tokens.change_token("token", lambda token: TokenChange(token=replace(token, revoked_at=NOW)))
    )
    await storing.wait()
    revoking.cancel()
    await asyncio.gather(revoking, return_exceptions=True)
    assert await tokens.token("token") == a_token(), "not yet"
    stored.set()
    await settled()
    assert await tokens.token("token") == replace(a_token(), revoked_at=NOW) == told[0]
