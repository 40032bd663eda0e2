"""What every call passes through: errors, access, limits, validation, in this order and at every door."""

import asyncio
import logging
from typing import Any

import grpc
import pytest
from api.conftest import Guards
from api.doors import Channel, Servicer, bare
from api.test_doors import Code, detail, failure, get, watch
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.job_pb2 import INPUT_TYPE_REFERENCE, JobInput, JobSpec
from jobledger_server.api.types import Metadata

pytestmark = pytest.mark.timeout(60)


async def reason_of(call: Any) -> str:
    return str(detail(await failure(call), ErrorInfo).reason)


def fields_of(error: grpc.aio.AioRpcError) -> list[str]:
    return [violation.field for violation in detail(error, BadRequest).field_violations]


@pytest.mark.parametrize("kind", [get, watch])
async def test_the_text_of_an_exception_stays_inside(
    stub: Any, token: Metadata, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        error = await failure(kind(stub, "fault", token))
    assert error.code() == Code.INTERNAL
    assert "tulip" not in repr(error)
    assert "ValueError" not in repr(error)
    reference = detail(error, ErrorInfo).metadata["reference"]
    assert reference in str(error.details())
    assert reference in caplog.text
    assert "the password is tulip" in caplog.text


async def test_a_store_that_can_not_write_is_safe_mode(stub: Any, token: Metadata) -> None:
    error = await failure(get(stub, "unavailable", token))
    assert (error.code(), detail(error, ErrorInfo).reason) == (Code.UNAVAILABLE, "ENGINE_SAFE_MODE")
    assert "/secret/path" not in repr(error)
    assert detail(error, RetryInfo).retry_delay.seconds > 0


async def test_an_error_fits_into_metadata_whatever_it_is_about(stub: Any, token: Metadata) -> None:
    """Else grpc would drop the status, and the caller would see neither reason nor message."""
    error = await failure(get(stub, "long", token))
    assert (error.code(), detail(error, ErrorInfo).reason) == (Code.INVALID_ARGUMENT, "VALIDATION")
    assert fields_of(error)[0].startswith("spec.env[é")
    assert 0 < len(fields_of(error)) < 500


async def test_without_a_token_nothing_is_answered(stub: Any) -> None:
    assert await reason_of(get(stub, "job", ())) == "AUTH_MISSING"
    assert await reason_of(watch(stub, "count", ())) == "AUTH_MISSING"


@pytest.mark.parametrize("value", ["Bearer", "Basic dTpw", "Bearer x"])
async def test_malformed_credentials_are_told_apart_from_wrong_ones(stub: Any, value: str) -> None:
    assert await reason_of(get(stub, "job", (("authorization", value),))) == "AUTH_MALFORMED"
    wrong = (("authorization", "Bearer jl_abcdefgh_" + "A" * 43),)
    assert await reason_of(get(stub, "job", wrong)) == "AUTH_INVALID"


async def test_two_credentials_are_malformed(stub: Any, token: Metadata) -> None:
    assert await reason_of(get(stub, "job", (*token, *token))) == "AUTH_MALFORMED"


async def test_a_missing_scope_is_forbidden(stub: Any, reader: Metadata) -> None:
    error = await failure(stub.CancelJob(pb.CancelJobRequest(job_id="job"), metadata=reader))
    assert (error.code(), detail(error, ErrorInfo).reason) == (Code.PERMISSION_DENIED, "FORBIDDEN")
    assert detail(error, ErrorInfo).metadata["scope"] == "jobs:cancel"


@pytest.mark.parametrize(
    "method", ["/jobledger.v1.JobService/Nope", "/nobody.v1.Service/Call", "/grpc.health.v1.Health/Nope"]
)
async def test_what_is_not_offered_is_told_only_to_those_with_a_token(
    channel: Channel, token: Metadata, method: str
) -> None:
    assert await reason_of(bare(channel, method)(b"")) == "AUTH_MISSING"
    error = await failure(bare(channel, method)(b"", metadata=token))
    assert (error.code(), detail(error, ErrorInfo).reason) == (Code.UNIMPLEMENTED, "UNIMPLEMENTED")


async def test_an_rpc_that_a_servicer_lacks_is_unimplemented_and_no_fault_is_told(stub: Any, token: Metadata) -> None:
    error = await failure(stub.DeleteJob(pb.DeleteJobRequest(job_id="job"), metadata=token))
    assert error.code() in (Code.UNIMPLEMENTED, Code.INTERNAL)
    assert "NotImplementedError" not in repr(error)


async def test_made_up_methods_leave_nothing_behind(channel: Channel, guards: Guards) -> None:
    """Their names come from callers without a token."""
    await failure(bare(channel, "/first/Call")(b""))
    before = [len(guard._wrapped) for guard in (guards.errors, guards.access)]
    for number in range(20):
        await failure(bare(channel, f"/made.up/Call{number}")(b""))
    assert [len(guard._wrapped) for guard in (guards.errors, guards.access)] == before


async def test_health_needs_no_token(channel: Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    error = await failure(health.Check(health_pb2.HealthCheckRequest(service="nobody")))
    assert error.code() == Code.NOT_FOUND


async def test_health_can_be_watched(channel: Channel) -> None:
    call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    async with asyncio.timeout(30):
        assert (await anext(aiter(call))).status == health_pb2.HealthCheckResponse.SERVING
    call.cancel()


@pytest.mark.parametrize("channel", ["socket"], indirect=True)
@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_needs_a_token(channel: Channel, reader: Metadata, version: str) -> None:
    """It takes a stream of requests, which the channel without a socket does not."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )
    requests = [ServerReflectionRequest(list_services="")]
    # Nothing is sent: what still is when the refusal is there already fails within the client.
    assert await reason_of(call()) == "AUTH_MISSING"
    [answer] = [answer async for answer in call(iter(requests), metadata=reader)]
    assert "jobledger.v1.JobService" in {service.name for service in answer.list_services_response.service}


def a_bad_request() -> pb.CreateJobRequest:
    spec = JobSpec(
        command=["true", "x" * 131_073], env={"A B": ""}, inputs=[JobInput(type=INPUT_TYPE_REFERENCE)], max_attempts=0
    )
    return pb.CreateJobRequest(spec=spec, idempotency_key="k" * 129)


async def test_a_broken_rule_is_told_with_the_path_of_its_field(stub: Any, token: Metadata) -> None:
    error = await failure(stub.CreateJob(a_bad_request(), metadata=token))
    assert error.code() == Code.INVALID_ARGUMENT
    assert fields_of(error) == [
        "spec.command[1]",
        "spec.env[A B]",
        "spec.inputs[0]",
        "spec.max_attempts",
        "idempotency_key",
    ]


async def test_a_rule_over_the_whole_request_names_the_request(stub: Any, token: Metadata) -> None:
    error = await failure(stub.CancelJobs(pb.CancelJobsRequest(), metadata=token))
    assert fields_of(error) == ["request"]
    assert "at least one of" in str(error.details())


async def test_a_stream_is_validated_too(stub: Any, token: Metadata) -> None:
    error = await failure(stub.WatchEvents(pb.WatchEventsRequest(type=["job.exploded"]), metadata=token))
    assert fields_of(error) == ["type[0]"]


async def test_a_missing_message_is_named(stub: Any, token: Metadata) -> None:
    assert fields_of(await failure(stub.CreateJob(pb.CreateJobRequest(), metadata=token))) == ["spec"]
    wait = pb.WaitJobRequest(job_id="x", timeout=Duration(seconds=301))
    assert fields_of(await failure(stub.WaitJob(wait, metadata=token))) == ["timeout"]


async def test_a_server_that_closes_takes_nothing_new_and_lets_the_rest_finish(
    stub: Any, channel: Channel, servicer: Servicer, guards: Guards, token: Metadata
) -> None:
    under_way = get(stub, "wait", token)
    await asyncio.wait_for(servicer.begun.wait(), 30)
    guards.limits.close()
    error = await failure(get(stub, "job", token))
    assert (error.code(), detail(error, ErrorInfo).reason) == (Code.UNAVAILABLE, "ENGINE_SHUTTING_DOWN")
    assert detail(error, RetryInfo).retry_delay.seconds > 0
    await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    servicer.released.set()
    assert (await under_way).job_id == "wait"


async def test_beyond_the_most_calls_a_caller_is_told_to_come_back(
    stub: Any, servicer: Servicer, token: Metadata
) -> None:
    waiting = [get(stub, "wait", token) for _ in range(3)]
    await asyncio.wait_for(servicer.begun.wait(), 30)
    async with asyncio.timeout(30):
        while (await reason_if_any(get(stub, "job", token))) != "OVERLOADED":
            pass
    servicer.released.set()
    await asyncio.gather(*waiting)
    assert (await get(stub, "job", token)).job_id == "job"


async def reason_if_any(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return str(detail(error, ErrorInfo).reason)
    return ""


async def test_a_failed_call_gives_its_place_back(stub: Any, token: Metadata) -> None:
    for _ in range(10):
        assert await reason_of(get(stub, "missing", token)) == "JOB_NOT_FOUND"
        assert await reason_of(stub.CancelJobs(pb.CancelJobsRequest(), metadata=token)) == "VALIDATION"
        assert await reason_of(watch(stub, "midway", token, 1)) == "STREAM_GAP_TOO_LARGE"
    assert (await get(stub, "job", token)).job_id == "job"


async def test_the_token_comes_before_limits_and_limits_before_validation(
    stub: Any, guards: Guards, token: Metadata, reader: Metadata
) -> None:
    bad = a_bad_request()
    assert await reason_of(stub.CreateJob(bad)) == "AUTH_MISSING"
    assert await reason_of(stub.CreateJob(bad, metadata=reader)) == "FORBIDDEN"
    assert await reason_of(stub.CreateJob(bad, metadata=token)) == "VALIDATION"
    guards.limits.close()
    assert await reason_of(stub.CreateJob(bad)) == "AUTH_MISSING"
    assert await reason_of(stub.CreateJob(bad, metadata=reader)) == "FORBIDDEN"
    assert await reason_of(stub.CreateJob(bad, metadata=token)) == "ENGINE_SHUTTING_DOWN"
