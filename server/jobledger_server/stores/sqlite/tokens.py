"""Tokens, without their secrets."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from jobledger.v1.events_pb2 import Event

from jobledger_server.core.ports import TokenChange, TokenRecord
from jobledger_server.stores.sqlite import events as event_rows
from jobledger_server.stores.sqlite.writer import Transaction

SELECT = (
    "SELECT token_id, digest, name, scopes, workspaces, created_at, expires_at, revoked_at, last_used_at,"
    " first_id, successor_id FROM tokens"
)


def put(transaction: Transaction, token: TokenRecord, events: Sequence[Event]) -> None:
    """Stores a token, new or changed, with its events."""
    transaction.connection.execute(
        "INSERT OR REPLACE INTO tokens"
        " (token_id, digest, name, scopes, workspaces, created_at, expires_at, revoked_at, last_used_at,"
        " first_id, successor_id)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            token.token_id,
            token.digest,
            token.name,
            json.dumps(token.scopes),
            json.dumps(token.workspaces),
            token.created_at,
            token.expires_at,
            token.revoked_at,
            token.last_used_at,
            token.first_id,
            token.successor_id,
        ),
    )
    event_rows.append(transaction, events)


def change(
    transaction: Transaction, token_id: str, decide: Callable[[TokenRecord], TokenChange | None]
) -> TokenRecord | None:
    """Changes a token as `decide` has it."""
    token = get(transaction.connection, token_id)
    decided = None if token is None else decide(token)
    if decided is None:
        return token
    if decided.new is not None:
        put(transaction, decided.new, ())
    put(transaction, decided.token, decided.events)
    return decided.token


def note_use(transaction: Transaction, token_id: str, at: int) -> None:
    transaction.connection.execute(
        "UPDATE tokens SET last_used_at = ? WHERE token_id = ? AND last_used_at < ?", (at, token_id, at)
    )


def get(connection: sqlite3.Connection, token_id: str) -> TokenRecord | None:
    row = connection.execute(f"{SELECT} WHERE token_id = ?", (token_id,)).fetchone()
    return None if row is None else _token_of(row)


def every(connection: sqlite3.Connection) -> Sequence[TokenRecord]:
    return [_token_of(row) for row in connection.execute(f"{SELECT} ORDER BY created_at, token_id")]


def _token_of(row: Sequence[Any]) -> TokenRecord:
    token_id, digest, name, scopes, workspaces, created_at, expires_at, revoked_at, last_used_at, *line = row
    first_id, successor_id = line
    return TokenRecord(
        token_id=token_id,
        digest=digest,
        name=name,
        scopes=tuple(json.loads(scopes)),
        workspaces=tuple(json.loads(workspaces)),
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        last_used_at=last_used_at,
        first_id=first_id,
        successor_id=successor_id,
    )
