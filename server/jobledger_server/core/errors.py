"""The one way in which the server says no.

`ServiceError` carries a reason of the registry in `errors.proto`; the doors (`api`, and over it the gateway) turn it
into a status. Nothing else that is raised reaches a client, but a reference id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobledger.v1.errors_pb2 import ErrorReason, ErrorRule, error
from jobledger.v1.errors_pb2 import ErrorReason as Reason

__all__ = ["FieldViolation", "Reason", "ServiceError", "invalid", "name_of", "rule_of"]

PREFIX = "ERROR_REASON_"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field that breaks a rule: its path as a client writes it, and what the rule says."""

    field: str
    description: str


class ServiceError(Exception):
    """A call that is refused, with what a person can do about it.

    Attributes:
        reason: value of the registry.
        message: for people; made of the fields, or else the registry's own, when none is given.
        metadata: details as strings, such as `first_available_sequence`.
        fields: the violations, for `VALIDATION`.
        retry_after: seconds after which another try may help; None where it never does.
        hidden: whether what the caller is told of as absent is there, but not for it to see. This, `token_id`
            and `subject` are for the audit log alone.
        token_id: of the token that was refused, where its secret or its signature was right.
        subject: who that is, where an issuer or a certificate names one.
    """

    def __init__(
        self,
        reason: ErrorReason.ValueType,
        message: str | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        fields: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
        hidden: bool = False,
        token_id: str = "",
        subject: str = "",
    ) -> None:
        self.reason = reason
        self.message = message or _joined(fields) or rule_of(reason).message
        self.metadata = dict(metadata or {})
        self.fields = tuple(fields)
        self.retry_after = retry_after
        self.hidden = hidden
        self.token_id = token_id
        self.subject = subject
        super().__init__(f"{name_of(reason)}: {self.message}")


def _joined(fields: Sequence[FieldViolation]) -> str:
    return "; ".join(f"{violation.field}: {violation.description}" for violation in fields)


def rule_of(reason: ErrorReason.ValueType) -> ErrorRule:
    """What the registry says of a reason: gRPC code, HTTP status, default message."""
    value = ErrorReason.DESCRIPTOR.values_by_number[reason]
    return value.GetOptions().Extensions[error]


def invalid(field: str, description: str) -> ServiceError:
    """VALIDATION with one field that breaks a rule."""
    return ServiceError(Reason.ERROR_REASON_VALIDATION, fields=[FieldViolation(field, description)])


def name_of(reason: ErrorReason.ValueType) -> str:
    """The reason as `ErrorInfo.reason` has it, such as `JOB_NOT_FOUND`."""
    return ErrorReason.Name(reason).removeprefix(PREFIX)
