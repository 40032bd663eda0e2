"""The engine: how it is, and who may use it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from jobledger.calls.base import Calls
from jobledger.v1.engine_service_pb2 import (
    CollectGarbageRequest,
    CollectGarbageResponse,
    CreateTokenRequest,
    EngineStatus,
    GetStatusRequest,
    IssuedToken,
    ListAuditEntriesRequest,
    ListAuditEntriesResponse,
    ListTokensRequest,
    RevokeTokenRequest,
    RotateTokenRequest,
    TokenInfo,
    WhoAmIRequest,
)
from jobledger.values import duration, timestamp


class EngineCalls(Calls):
    """Verbs on the engine and its tokens."""

    async def status(self) -> EngineStatus:
        """How the engine is."""
        return await self._transport.call(self._engine.GetStatus, GetStatusRequest())

    async def collect_garbage(self, *, dry_run: bool = False) -> CollectGarbageResponse:
        """Removes what retention no longer keeps; with `dry_run`, only says what would go. Needs the scope `admin`."""
        return await self._transport.call(self._engine.CollectGarbage, CollectGarbageRequest(dry_run=dry_run))

    async def whoami(self) -> TokenInfo:
        """Whose token this client uses, and what it may do."""
        return await self._transport.call(self._engine.WhoAmI, WhoAmIRequest())

    async def tokens(self) -> Sequence[TokenInfo]:
        """All tokens without their secrets, oldest first. Needs the scope `admin`, as do the verbs below."""
        return (await self._transport.call(self._engine.ListTokens, ListTokensRequest())).tokens

    async def create_token(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        workspaces: Sequence[str] = (),
        expires_in: float | timedelta | None = None,
    ) -> IssuedToken:
        """Makes a token; the answer is the only time that it is shown.

        Args:
            scopes: of `jobs:read`, `jobs:create`, `jobs:cancel`, `jobs:exec`, `worker`, `admin`.
            workspaces: what it is bound to; empty for all.
            expires_in: seconds; None for until it is revoked.

        Raises:
            ValidationError: there is no such scope.
        """
        request = CreateTokenRequest(
            name=name,
            scopes=scopes,
            workspaces=workspaces,
            expires_in=None if expires_in is None else duration(expires_in),
        )
        return await self._transport.call(self._engine.CreateToken, request, repeatable=False)

    async def revoke_token(self, token_id: str) -> TokenInfo:
        """Ends a token at once.

        Raises:
            NotFoundError: there is no such token.
        """
        return await self._transport.call(self._engine.RevokeToken, RevokeTokenRequest(token_id=token_id))

    async def rotate_token(self, token_id: str) -> IssuedToken:
        """Replaces a token by a new one of the same rights; the old one works for 60 s more.

        Raises:
            NotFoundError: there is no such token.
        """
        request = RotateTokenRequest(token_id=token_id)
        return await self._transport.call(self._engine.RotateToken, request, repeatable=False)

    async def audit_entries(
        self,
        *,
        since: datetime | None = None,
        token_id: str | None = None,
        job_id: str | None = None,
        limit: int | None = None,
        page_token: str | None = None,
        after_number: int | None = None,
    ) -> ListAuditEntriesResponse:
        """Who called what: a page of the audit log, newest first.

        Args:
            since: an instant; entries before it are left out.
            token_id: only entries of this token.
            job_id: only entries about this job.
            limit: most entries of a page, 1 to 1000; 50 unless told.
            page_token: `next_page_token` of the page before, with the same filter.
            after_number: entries with a higher number, oldest first; not together with `page_token`.
        """
        request = ListAuditEntriesRequest(
            since=None if since is None else timestamp(since),
            token_id=token_id,
            job_id=job_id,
            limit=limit,
            page_token=page_token,
            after_number=after_number,
        )
        return await self._transport.call(self._engine.ListAuditEntries, request)
