"""Requests are held against the rules in the .proto; of those that only read, each once while it is remembered."""

import time
from typing import Any

import pytest
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.job_pb2 import JobSpec
from jobledger_server.api.interceptors import validation
from jobledger_server.api.interceptors.validation import Validation
from jobledger_server.core.errors import ServiceError
from jobledger_server.core.policy import SERVICES

LIST, CREATE = "/jobledger.v1.JobService/ListJobs", "/jobledger.v1.JobService/CreateJob"
CONTEXT: Any = None


class Counting:
    """A validator that counts what it is asked."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.asked: list[Message] = []

    def collect_violations(self, message: Message, *, fail_fast: bool) -> Any:
        self.asked.append(message)
        return self._inner.collect_violations(message, fail_fast=fail_fast)


@pytest.fixture
def guard() -> Validation:
    guard = Validation()
    guard._validator = Counting(guard._validator)  # type: ignore[assignment]
    return guard


async def ask(guard: Validation, method: str, request: Message) -> None:
    async def answer(request: Any, context: Any) -> None:
        pass

    await guard.unary(method, answer)(request, CONTEXT)


def asked(guard: Validation) -> int:
    return len(guard._validator.asked)  # type: ignore[attr-defined]


async def test_of_a_large_request_the_first_fault_is_told_at_once(guard: Validation) -> None:
    """To find all of half a million takes 15 s, in which nobody else is served."""
    small, large = (pb.CreateJobRequest(spec=JobSpec(artifacts=[""] * count)) for count in (3, 500_000))
    for request, faults in ((small, 3), (large, 1)):
        began = time.process_time()
        with pytest.raises(ServiceError) as refused:
            await ask(guard, CREATE, request)
        assert len(refused.value.fields) == faults
        assert time.process_time() - began < 2


async def test_a_good_request_is_checked_once_and_a_bad_one_refused_every_time(guard: Validation) -> None:
    for _ in range(3):
        await ask(guard, LIST, pb.ListJobsRequest(limit=5))
        with pytest.raises(ServiceError):
            await ask(guard, LIST, pb.ListJobsRequest(limit=0))
    assert asked(guard) == 4


async def test_bytes_that_are_good_for_one_method_say_nothing_of_another(guard: Validation) -> None:
    same = b"\x08\x00"
    await ask(guard, "/jobledger.v1.JobService/GetJob", pb.GetJobRequest.FromString(same))
    with pytest.raises(ServiceError):
        await ask(guard, LIST, pb.ListJobsRequest.FromString(same))


async def test_what_is_not_only_read_is_not_remembered(guard: Validation) -> None:
    """It may hold what nobody wants to stay in memory."""
    for _ in range(2):
        await ask(guard, CREATE, pb.CreateJobRequest(spec=JobSpec(tools=["git"])))
    assert asked(guard) == 2
    assert not guard._good


async def test_what_is_quickly_told_to_be_good_is_not_asked_about(guard: Validation) -> None:
    await ask(guard, CREATE, pb.CreateJobRequest(spec=JobSpec(command=["true"])))
    assert asked(guard) == 0
    with pytest.raises(ServiceError) as refused:
        await ask(guard, CREATE, pb.CreateJobRequest(spec=JobSpec(queue="-")))
    assert [violation.field for violation in refused.value.fields] == ["spec.queue"]
    assert asked(guard) == 1


async def test_not_more_is_remembered_than_there_is_room_for(
    guard: Validation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "MOST_KNOWN", 2)
    monkeypatch.setattr(validation, "MOST_BYTES_KNOWN", 20)
    for limit in range(1, 8):
        await ask(guard, LIST, pb.ListJobsRequest(limit=limit))
    await ask(guard, LIST, pb.ListJobsRequest(page_token="x" * 50))
    assert len(guard._good) == 1


def test_no_rule_looks_at_the_clock() -> None:
    """Else a request that was good could be bad later."""
    seen: set[str] = set()

    def visit(message: Descriptor) -> None:
        if message.full_name in seen:
            return
        seen.add(message.full_name)
        assert "now" not in str(message.GetOptions().Extensions[validate_pb2.message])
        for field in message.fields:
            rules = field.GetOptions().Extensions[validate_pb2.field]
            assert "now" not in str(rules), field.full_name
            assert "within" not in str(rules), field.full_name
            if field.message_type is not None:
                visit(field.message_type)

    for service in SERVICES:
        for method in service.methods:
            visit(method.input_type)
    assert len(seen) > 20
