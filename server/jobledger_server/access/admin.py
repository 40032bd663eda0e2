"""Making, listing, revoking and rotating tokens."""

from dataclasses import replace

from jobledger.v1.engine_service_pb2 import CreateTokenRequest, IssuedToken, TokenInfo
from jobledger.v1.events_pb2 import Event, TokenRotated

from jobledger_server.access.tokens import digest, issue
from jobledger_server.core.audit import note_object
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import SCOPES, Principal
from jobledger_server.core.ports import Clock, TokenChange, TokenRecord, TokenStore
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
        note_object(record.token_id)
        await self._tokens.put_token(record)
        return IssuedToken(info=token_info(record), token=token)

    async def list(self) -> list[TokenInfo]:
        return [token_info(record) for record in await self._tokens.tokens()]

    async def revoke(self, token_id: str) -> TokenInfo:
        """Ends a token at once, and its open streams; one that is revoked already stays as it is."""
        now = self._clock.now()

        def decide(token: TokenRecord) -> TokenChange | None:
            return None if token.revoked_at else TokenChange(token=replace(token, revoked_at=now))

        return token_info(_found(await self._tokens.change_token(token_id, decide)))

    async def rotate(self, token_id: str) -> IssuedToken:
        """A new token of the same rights; the old one works for 60 s more.

        Both are one transaction: whatever happens, there is the old one as it was, or both with the event.
        """
        now = self._clock.now()
        blank, token = self._new("", ())
        issued: list[TokenRecord] = []

        def decide(old: TokenRecord) -> TokenChange:
            change = _rotation(old, blank, now)
            issued.append(change.new or blank)
            return change

        _found(await self._tokens.change_token(token_id, decide))
        return IssuedToken(info=token_info(issued[-1]), token=token)

    async def whoami(self, principal: Principal) -> TokenInfo:
        """What a caller may do; one who has no token of ours is told it as of one."""
        record = await self._tokens.token(principal.token_id)
        return _info_of(principal) if record is None else token_info(record)

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


def _info_of(principal: Principal) -> TokenInfo:
    info = TokenInfo(token_id=principal.token_id, name=principal.subject, scopes=sorted(principal.scopes))
    info.workspaces.extend(sorted(principal.workspaces or ()))
    if principal.expires_at:
        info.expires_at.CopyFrom(timestamp(principal.expires_at))
    return info


def _rotation(old: TokenRecord, blank: TokenRecord, now: int) -> TokenChange:
    """What a rotation comes to; `blank` is a new token without rights."""
    if old.revoked_at or 0 < old.expires_at <= now:
        raise ServiceError(
            Reason.ERROR_REASON_VALIDATION, "A revoked or expired token can't be rotated: create a new one"
        )
    if old.successor_id:
        # Its own end is that of the overlap by now: a second successor would end with it.
        told = f"The token was rotated already, to {old.successor_id}: rotate that one, or revoke it and create another"
        raise ServiceError(Reason.ERROR_REASON_VALIDATION, told)
    new = replace(
        old,
        token_id=blank.token_id,
        digest=blank.digest,
        created_at=blank.created_at,
        last_used_at=0,
        first_id=old.first_id or old.token_id,
    )
    until = min(old.expires_at or now + ROTATION_OVERLAP, now + ROTATION_OVERLAP)
    detail = TokenRotated(token_id=old.token_id, new_token_id=new.token_id, valid_until=timestamp(until))
    event = Event(event_type="engine.token_rotated", timestamp_utc=timestamp(now), token_rotated=detail)
    rotated = replace(old, expires_at=until, successor_id=new.token_id)
    return TokenChange(token=rotated, new=new, events=[event])


def _found(record: TokenRecord | None) -> TokenRecord:
    if record is None:
        raise ServiceError(Reason.ERROR_REASON_NOT_FOUND, "There is no such token: `jobledger token list` shows all")
    return record


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
