"""Tokens that are in use, kept in memory: every call shows one, and the store need not be asked each time."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from jobledger.v1.events_pb2 import Event

from jobledger_server.core.changes import completed
from jobledger_server.core.ports import TokenChange, TokenRecord, TokenStore

MOST_TOKENS = 1024


class CachedTokens:
    """Implements `ports.TokenStore` over another one, all of whose changes must come through here.

    A change counts from the moment at which it is stored. Ids that nobody has are not remembered: whoever guesses them
    would fill the memory.
    """

    def __init__(self, tokens: TokenStore, *, most: int = MOST_TOKENS) -> None:
        self._tokens = tokens
        self._most = most
        self._known: OrderedDict[str, TokenRecord] = OrderedDict()
        self._changes = 0
        self._listeners: list[Callable[[TokenRecord], None]] = []

    def on_change(self, listener: Callable[[TokenRecord], None]) -> None:
        """Calls `listener` with each token that was changed, as soon as that is stored."""
        self._listeners.append(listener)

    async def token(self, token_id: str) -> TokenRecord | None:
        """See `ports.TokenStore.token`."""
        known = self._known.get(token_id)
        if known is not None:
            self._known.move_to_end(token_id)
            return known
        changes = self._changes
        record = await self._tokens.token(token_id)
        # What was read while a change was under way may be from before it.
        if record is not None and changes == self._changes:
            self._known[token_id] = record
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return record

    @completed
    async def put_token(self, token: TokenRecord, events: Sequence[Event] = ()) -> None:
        """See `ports.TokenStore.put_token`."""
        try:
            await self._tokens.put_token(token, events)
        finally:
            # Also where it failed: it may be stored all the same.
            self._changes += 1
            self._known.pop(token.token_id, None)
        self._tell(token)

    @completed
    async def change_token(
        self, token_id: str, decide: Callable[[TokenRecord], TokenChange | None]
    ) -> TokenRecord | None:
        """See `ports.TokenStore.change_token`."""
        try:
            changed = await self._tokens.change_token(token_id, decide)
        finally:
            self._changes += 1
            self._known.pop(token_id, None)
        if changed is not None:
            self._tell(changed)
        return changed

    def _tell(self, changed: TokenRecord) -> None:
        for listener in self._listeners:
            listener(changed)

    async def note_token_use(self, token_id: str, at: int) -> None:
        """See `ports.TokenStore.note_token_use`."""
        known = self._known.get(token_id)
        if known is not None:
            # First of all, so that of many calls at once only one writes.
            self._known[token_id] = replace(known, last_used_at=max(known.last_used_at, at))
        await self._tokens.note_token_use(token_id, at)

    async def tokens(self) -> Sequence[TokenRecord]:
        """See `ports.TokenStore.tokens`."""
        return await self._tokens.tokens()
