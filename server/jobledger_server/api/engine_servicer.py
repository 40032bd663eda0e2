"""EngineService: each method reads the request, calls a use case, and answers."""

from jobledger.v1 import engine_service_pb2 as pb
from jobledger.v1.engine_service_pb2_grpc import EngineServiceServicer

from jobledger_server.access.admin import TokenAdmin
from jobledger_server.api.interceptors.access import current_principal
from jobledger_server.api.types import Context
from jobledger_server.core.policy import require_all_workspaces
from jobledger_server.service.auditing import AuditLog
from jobledger_server.service.engine import Engine
from jobledger_server.service.garbage import GarbageCollector


class EngineServicer(EngineServiceServicer):
    """The engine over gRPC."""

    def __init__(self, *, engine: Engine, garbage: GarbageCollector, tokens: TokenAdmin, audit: AuditLog) -> None:
        self._engine = engine
        self._garbage = garbage
        self._tokens = tokens
        self._audit = audit

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.EngineStatus:
        return await self._engine.status(current_principal().workspaces)

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.TokenInfo:
        return await self._tokens.whoami(current_principal())

    async def CollectGarbage(self, request: pb.CollectGarbageRequest, context: Context) -> pb.CollectGarbageResponse:
        require_all_workspaces(current_principal())
        sweep = await self._garbage.collect(dry_run=request.dry_run)
        garbage = [
            pb.Garbage(name=name, count=count, bytes=sweep.size[name]) for name, count in sorted(sweep.count.items())
        ]
        return pb.CollectGarbageResponse(garbage=garbage, dry_run=request.dry_run)

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.IssuedToken:
        require_all_workspaces(current_principal())
        return await self._tokens.create(request)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensResponse:
        require_all_workspaces(current_principal())
        return pb.ListTokensResponse(tokens=await self._tokens.list())

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.TokenInfo:
        require_all_workspaces(current_principal())
        return await self._tokens.revoke(request.token_id)

    async def RotateToken(self, request: pb.RotateTokenRequest, context: Context) -> pb.IssuedToken:
        require_all_workspaces(current_principal())
        return await self._tokens.rotate(request.token_id)

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: Context
    ) -> pb.ListAuditEntriesResponse:
        return await self._audit.list(request, current_principal())
