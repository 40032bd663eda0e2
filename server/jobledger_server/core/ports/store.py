"""Events, receipts and tokens as they are stored, and the store as a whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from jobledger.v1.events_pb2 import Event

from jobledger_server.core.ports.archive import SealedJob
from jobledger_server.core.ports.audit import AuditStore
from jobledger_server.core.ports.jobs import JobStore, StoredReceipt
from jobledger_server.core.ports.retention import RetentionStore


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBounds:
    """Numbers of the first event that is kept and of the last that was ever stored.

    With none stored: first 1, last 0. With all dropped: first = last + 1.
    """

    first: int
    last: int


class EventStore(Protocol):
    """Events. Numbers are dense from 1, in commit order, and never given twice."""

    async def append_events(self, events: Sequence[Event]) -> None:
        """Stores events that belong to no job."""

    async def events_after(self, sequence: int, *, limit: int) -> Sequence[Event]:
        """Up to `limit` stored events with a number > sequence, in order."""

    async def event_bounds(self) -> EventBounds:
        """What is kept."""

    def on_events(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Calls `listener` in the event loop after each commit, with what it stored, in commit order."""


class ReceiptStore(Protocol):
    """Receipts, and the leaves of the Merkle log over them."""

    async def receipt(self, job_id: str) -> StoredReceipt | None:
        """The receipt as it was stored."""

    async def receipt_leaves(self, start: int = 0) -> Sequence[bytes]:
        """The leaves from index `start` on, in the order of their index."""

    async def sealed_jobs(self, start: int, *, limit: int) -> Sequence[SealedJob]:
        """Up to `limit` receipts from index `start` on, with what there still is of their jobs, in that order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A token without its secret. 0 means unset for the instants.

    Attributes:
        digest: SHA-256 of the whole token.
        first_id: id of the token that the line of rotations to this one began with; empty where it is the first.
        successor_id: id of the token that it was rotated to; empty where it was not.
    """

    token_id: str
    digest: bytes
    name: str
    scopes: tuple[str, ...]
    workspaces: tuple[str, ...] = ()
    created_at: int
    expires_at: int = 0
    revoked_at: int = 0
    last_used_at: int = 0
    first_id: str = ""
    successor_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenChange:
    """What becomes of a token: itself changed, perhaps a new one beside it, and the events that tell of it."""

    token: TokenRecord
    new: TokenRecord | None = None
    events: Sequence[Event] = ()


class TokenStore(Protocol):
    """Tokens."""

    async def put_token(self, token: TokenRecord, events: Sequence[Event] = ()) -> None:
        """Stores a token, new or changed, with the events that tell of it."""

    async def change_token(
        self, token_id: str, decide: Callable[[TokenRecord], TokenChange | None]
    ) -> TokenRecord | None:
        """Changes a token as it is then, all in one transaction. Returns how it is afterwards; None: there is none.

        `decide` may run in another thread. None of it: nothing is changed. What it raises is raised, and nothing is
        changed.
        """

    async def token(self, token_id: str) -> TokenRecord | None:
        """The token, expired and revoked ones too."""

    async def note_token_use(self, token_id: str, at: int) -> None:
        """Raises `last_used_at` to `at` where that is later. May be lost in a crash."""

    async def tokens(self) -> Sequence[TokenRecord]:
        """All tokens, oldest first."""


class Store(JobStore, EventStore, ReceiptStore, TokenStore, AuditStore, RetentionStore, Protocol):
    """All of the above in one database, so that a change can be one transaction."""

    @property
    def trouble(self) -> str:
        """Why the latest write failed; empty where it succeeded."""


class StoreUnavailableError(Exception):
    """The store can't write just now (disk full, I/O error, locked). What was being written may or may not exist."""


class InvariantError(AssertionError):
    """The caller tried to write what may never be: a terminal job changed, an id used twice. A bug of the caller's."""
