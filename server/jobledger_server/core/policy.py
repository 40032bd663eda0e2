"""Who may do what. One rule for each RPC, written beside it in the .proto; a method without a rule is closed to all."""

from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from jobledger.v1 import engine_service_pb2, job_service_pb2, receipt_service_pb2
from jobledger.v1.annotations_pb2 import access

from jobledger_server.core.errors import Reason, ServiceError

SCOPES = ("jobs:read", "jobs:create", "jobs:cancel", "jobs:exec", "worker", "admin")
SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for module in (job_service_pb2, receipt_service_pb2, engine_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)

# Services of others that run beside ours. The empty scope means any valid token.
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
HEALTH = "grpc.health.v1.Health"
OPEN = f"/{HEALTH}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls: a token, what it may do, and the workspaces that it is bound to (None: all).

    Attributes:
        subject: whom an identity provider or a certificate names; empty for tokens of our own.
        expires_at: microseconds since the epoch; 0 where it does not end by itself.
        first_id: of a token that another one was rotated to, the id of the first of them.
    """

    token_id: str
    scopes: frozenset[str]
    workspaces: frozenset[str] | None = None
    subject: str = ""
    expires_at: int = 0
    first_id: str = ""

    @property
    def line(self) -> str:
        """What a rotation keeps: the id of the first token of the line, its own where it was never rotated."""
        return self.first_id or self.token_id

    @property
    def identity(self) -> str:
        """Who it is, as jobs and receipts have it."""
        return self.subject or self.token_id

    def may(self, scope: str) -> bool:
        """Whether the scope is among its own; `admin` has all but `worker`."""
        return not scope or scope in self.scopes or ("admin" in self.scopes and scope != "worker")

    def sees(self, workspace_id: str) -> bool:
        return self.workspaces is None or workspace_id in self.workspaces


def scopes_by_method() -> dict[str, str]:
    """The scope that each RPC needs, by full method name such as `/jobledger.v1.JobService/GetJob`."""
    rules = {
        f"/{service.full_name}/{method.name}": method.GetOptions().Extensions[access].scope
        for service in SERVICES
        for method in service.methods
        if has_rule(method)
    }
    for service in (REFLECTION, REFLECTION_V1):
        rules[f"/{service}/ServerReflectionInfo"] = ""
    return rules


def has_rule(method: MethodDescriptor) -> bool:
    return method.GetOptions().HasExtension(access)


def is_open(method: str) -> bool:
    """Whether a method needs no token: only health is."""
    return method.startswith(OPEN)


def require_all_workspaces(principal: Principal) -> None:
    """Raises FORBIDDEN for a token that is bound to workspaces: what it asks for reaches beyond them."""
    if principal.workspaces is not None:
        told = "A token that is bound to workspaces can't administer the engine"
        raise ServiceError(Reason.ERROR_REASON_FORBIDDEN, told)


def require(principal: Principal, scope: str) -> None:
    """Raises FORBIDDEN unless the principal has the scope."""
    if not principal.may(scope):
        advice = "ask an administrator for one that does"
        if principal.subject:
            advice = f"ask an administrator to give it to {principal.subject}"
        raise ServiceError(
            Reason.ERROR_REASON_FORBIDDEN,
            f"The token does not carry the scope {scope!r}: {advice}",
            metadata={"scope": scope},
        )


def require_any(principal: Principal, *scopes: str) -> None:
    """Raises FORBIDDEN, for want of the first, unless the principal has one of the scopes."""
    if not any(map(principal.may, scopes)):
        require(principal, scopes[0])
