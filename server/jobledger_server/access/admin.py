"""Making, listing, revoking and rotating tokens."""

from dataclasses import replace

from jobledger.v1.engine_service_pb2 import CreateTokenRequest, IssuedToken, TokenInfo
from jobledger.v1.events_pb2 import Event, TokenRotated

from jobledger_server.access.tokens import digest, issue
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import SCOPES
from jobledger_server.core.ports import Clock, TokenRecord, TokenStore
from jobledger_server.core.times import LATEST, SECOND, seconds, timestamp

ROTATION_OVERLAP = 60 * SECOND


class TokenAdmin:
    """What an administrator does with tokens."""

    def __init__(self, *, tokens: TokenStore, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    async def create_first(self) -> str:
        """A token with every scope, for the one who started the server."""
        record, token = self._new("first", tuple(scope for scope in SCOPES if scope != "worker"))
        await self._tokens.put_token(record)
        return token

    async def create(self, request: CreateTokenRequest) -> IssuedToken:
        expires_at = 0
        if request.HasField("expires_in"):
            expires_at = min(self._clock.now() + round(seconds(request.expires_in) * SECOND), LATEST * SECOND)
        record, token = self._new(request.name, tuple(request.scopes), tuple(request.workspaces), expires_at)
        await self._tokens.put_token(record)
        return IssuedToken(info=token_info(record), token=token)

    async def list(self) -> list[TokenInfo]:
        return [token_info(record) for record in await self._tokens.tokens()]

    async def revoke(self, token_id: str) -> TokenInfo:
        """Ends a token at once; one that is revoked already stays as it is."""
        record = await self._find(token_id)
        if not record.revoked_at:
            record = replace(record, revoked_at=self._clock.now())
            await self._tokens.put_token(record)
        return token_info(record)

    async def rotate(self, token_id: str) -> IssuedToken:
        """A new token of the same rights; the old one works for 60 s more."""
        old = await self._find(token_id)
        now = self._clock.now()
        if old.revoked_at or 0 < old.expires_at <= now:
            raise ServiceError(
                Reason.ERROR_REASON_VALIDATION, "A revoked or expired token can't be rotated: create a new one"
            )
        record, token = self._new(old.name, old.scopes, old.workspaces, old.expires_at)
        until = min(old.expires_at or now + ROTATION_OVERLAP, now + ROTATION_OVERLAP)
        detail = TokenRotated(token_id=old.token_id, new_token_id=record.token_id, valid_until=timestamp(until))
        event = Event(event_type="engine.token_rotated", timestamp_utc=timestamp(now), token_rotated=detail)
        await self._tokens.put_token(record)
        await self._tokens.put_token(replace(old, expires_at=until), [event])
        return IssuedToken(info=token_info(record), token=token)

    async def info(self, token_id: str) -> TokenInfo:
        return token_info(await self._find(token_id))

    async def _find(self, token_id: str) -> TokenRecord:
        record = await self._tokens.token(token_id)
        if record is None:
            raise ServiceError(
                Reason.ERROR_REASON_NOT_FOUND, "There is no such token: `jobledger token list` shows all"
            )
        return record

    def _new(
        self, name: str, scopes: tuple[str, ...], workspaces: tuple[str, ...] = (), expires_at: int = 0
    ) -> tuple[TokenRecord, str]:
        token_id, token = issue(self._clock)
        record = TokenRecord(
            token_id=token_id,
            digest=digest(token.encode()),
            name=name,
            scopes=scopes,
            workspaces=workspaces,
            created_at=self._clock.now(),
            expires_at=expires_at,
        )
        return record, token


def token_info(record: TokenRecord) -> TokenInfo:
    """What may be told of a token."""
    info = TokenInfo(token_id=record.token_id, name=record.name, scopes=record.scopes, workspaces=record.workspaces)
    instants = {
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
        "last_used_at": record.last_used_at,
    }
    for field, instant in instants.items():
        if instant:
            # One stored token of a clock gone wrong must not keep the others from being listed.
            getattr(info, field).CopyFrom(timestamp(min(instant, LATEST * SECOND)))
    return info
