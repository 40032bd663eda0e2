"""The registry of errors: complete, and as clients were promised."""

import re

import pytest
from google.rpc.code_pb2 import Code
from jobledger.v1.errors_pb2 import ErrorReason
from jobledger_server.core.errors import FieldViolation, Reason, ServiceError, invalid, name_of, rule_of

# What the API promises: gRPC code, HTTP status, reasons. Where no code is promised it is None.
PROMISED: list[tuple[str | None, int, str]] = [
    ("UNAUTHENTICATED", 401, "AUTH_MISSING AUTH_MALFORMED AUTH_INVALID AUTH_TOKEN_EXPIRED"),
    ("PERMISSION_DENIED", 403, "FORBIDDEN PATH_NOT_ALLOWED PATH_TRAVERSAL"),
    ("INVALID_ARGUMENT", 422, "VALIDATION"),
    (None, 400, "BAD_JSON BAD_REQUEST"),
    ("NOT_FOUND", 404, "JOB_NOT_FOUND ARTIFACT_NOT_FOUND"),
    (None, 404, "NOT_FOUND"),
    (None, 405, "METHOD_NOT_ALLOWED"),
    (None, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ("RESOURCE_EXHAUSTED", 413, "TOO_LARGE"),
    (None, 408, "REQUEST_TIMEOUT"),
    (None, 421, "HOST_NOT_ALLOWED"),
    (None, 431, "HEADERS_TOO_LARGE"),
    ("FAILED_PRECONDITION", 409, "JOB_ALREADY_FINISHED JOB_NOT_FINISHED JOB_INPUT_CLOSED ARTIFACT_NOT_READY"),
    ("DATA_LOSS", 409, "ARTIFACT_QUARANTINED LOG_DAMAGED"),
    ("FAILED_PRECONDITION", 404, "RECEIPT_NOT_READY RECEIPT_NOT_GENERATED"),
    ("ALREADY_EXISTS", 409, "IDEMPOTENCY_CONFLICT"),
    ("INVALID_ARGUMENT", 400, "STREAM_INVALID_SEQUENCE"),
    ("OUT_OF_RANGE", 410, "STREAM_GAP_TOO_LARGE"),
    ("RESOURCE_EXHAUSTED", 429, "AUTH_RATE_LIMITED RATE_LIMITED OVERLOADED"),
    ("UNAVAILABLE", 503, "ENGINE_STARTING ENGINE_SHUTTING_DOWN ENGINE_SAFE_MODE"),
    ("DEADLINE_EXCEEDED", 504, "DEADLINE"),
    ("INTERNAL", 500, "INTERNAL"),
]
# Beyond the promise: a byte range, a call that is not offered, a gateway whose server is away.
OTHERS = {"RANGE_NOT_SATISFIABLE": 416, "PRECONDITION_FAILED": 412, "UNIMPLEMENTED": 501, "ENGINE_UNREACHABLE": 503}
REASONS = [reason for reason in ErrorReason.values() if reason]


@pytest.mark.parametrize("reason", REASONS, ids=name_of)
def test_every_reason_has_code_status_and_message(reason: ErrorReason.ValueType) -> None:
    rule = rule_of(reason)
    assert Code.Name(rule.grpc_code) != "OK"
    assert 400 <= rule.http_status <= 599
    assert rule.message
    assert re.fullmatch("[A-Z][A-Z_]*[A-Z]", name_of(reason))


def test_codes_and_statuses_are_those_that_were_promised() -> None:
    for code, status, names in PROMISED:
        for name in names.split():
            rule = rule_of(ErrorReason.Value(f"ERROR_REASON_{name}"))
            assert rule.http_status == status, name
            assert code is None or Code.Name(rule.grpc_code) == code, name


def test_no_reason_is_unaccounted_for() -> None:
    promised = {name: status for _, status, names in PROMISED for name in names.split()}
    assert {name_of(reason): rule_of(reason).http_status for reason in REASONS} == promised | OTHERS


def test_an_error_says_what_the_registry_says_unless_it_knows_better() -> None:
    assert ServiceError(Reason.ERROR_REASON_JOB_NOT_FOUND).message == "There is no such job"
    assert ServiceError(Reason.ERROR_REASON_JOB_NOT_FOUND, "Gone").message == "Gone"
    assert str(ServiceError(Reason.ERROR_REASON_JOB_NOT_FOUND, "Gone")) == "JOB_NOT_FOUND: Gone"


def test_a_broken_rule_names_every_field() -> None:
    error = ServiceError(
        Reason.ERROR_REASON_VALIDATION, fields=[FieldViolation("a", "too long"), FieldViolation("b[2]", "empty")]
    )
    assert error.message == "a: too long; b[2]: empty"
    assert invalid("a", "too long").fields == (FieldViolation("a", "too long"),)
