"""What the server refuses becomes an exception that says why."""

import re

import grpc
import jobledger
import pytest
from jobledger import errors
from jobledger.client import Client
from jobledger.v1.errors_pb2 import ErrorReason
from sdk.fake_server import FakeServer, Refusal

REASONS = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys() if name != "ERROR_REASON_UNSPECIFIED"]  # noqa: SIM118

KINDS = {
    "AUTH_RATE_LIMITED": jobledger.RateLimitedError,
    "AUTH_INVALID": jobledger.AuthenticationError,
    "FORBIDDEN": jobledger.PermissionDeniedError,
    "VALIDATION": jobledger.ValidationError,
    "TOO_LARGE": jobledger.ValidationError,
    "JOB_NOT_FOUND": jobledger.NotFoundError,
    "RECEIPT_NOT_READY": jobledger.NotFoundError,
    "JOB_ALREADY_FINISHED": jobledger.ConflictError,
    "IDEMPOTENCY_CONFLICT": jobledger.ConflictError,
    "STREAM_GAP_TOO_LARGE": jobledger.OutOfRangeError,
    "ARTIFACT_QUARANTINED": jobledger.DataLossError,
    "OVERLOADED": jobledger.RateLimitedError,
    "ENGINE_SAFE_MODE": jobledger.UnavailableError,
    "DEADLINE": jobledger.DeadlineError,
    "UNIMPLEMENTED": jobledger.UnsupportedError,
    "INTERNAL": jobledger.InternalError,
}


@pytest.mark.parametrize("reason", REASONS)
async def test_every_registered_reason_keeps_its_code_and_message(
    server: FakeServer, client: Client, reason: str
) -> None:
    server.on("SendInput", Refusal(reason=reason, message="what to do", metadata={"a": "b"}))
    with pytest.raises(jobledger.JobledgerError) as failure:
        await client.send_input("job_1", "x")
    error = failure.value
    assert (error.error_code, error.message, error.details) == (f"E_{reason}", "what to do", {"a": "b"})
    assert type(error) is not jobledger.JobledgerError
    assert type(error) is KINDS.get(reason, type(error))


async def test_a_validation_error_names_the_fields(server: FakeServer, client: Client) -> None:
    server.on("CreateJob", Refusal(reason="VALIDATION", fields=[("spec.timeout", "must be greater than 0")]))
    with pytest.raises(jobledger.ValidationError) as failure:
        await client.submit(["true"])
    assert failure.value.fields == (errors.FieldViolation("spec.timeout", "must be greater than 0"),)


async def test_an_error_without_details_still_has_a_code(server: FakeServer, client: Client) -> None:
    """A proxy between client and server knows nothing of the registry."""
    server.on("SendInput", Refusal(reason="FORBIDDEN", message="proxy says no", bare=True))
    with pytest.raises(jobledger.PermissionDeniedError) as failure:
        await client.send_input("job_1", "x")
    assert (failure.value.error_code, failure.value.message) == ("E_FORBIDDEN", "proxy says no")


def test_every_grpc_status_has_an_exception() -> None:
    table = errors._BY_STATUS
    assert set(table) == set(grpc.StatusCode) - {grpc.StatusCode.OK}
    known = {f"E_{reason}" for reason in REASONS}
    assert {code for _, code in table.values()} <= known


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    assert drawn == {kind.__name__ for kind in jobledger.JobledgerError.__subclasses__()}


def test_a_deadline_is_a_timeout_to_those_who_know_no_grpc() -> None:
    assert issubclass(jobledger.DeadlineError, TimeoutError)
