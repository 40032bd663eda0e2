"""The vectors through a real Envoy: where they name no deviation of its own it answers as the gateway does.

So the marks `env` in the vectors, and the reasons in `deviations.jsonl`, are those of the Envoy at hand. Where the
gateway says 422, of a value that parses but is not allowed, Envoy has 400.
"""

import asyncio
import http.client
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gateway.client import Client
from gateway.foreign import Recorder, listening, vectors_service, vectors_set
from gateway.test_vectors import FILES, answering, lines, of_call, of_headers, prepare, request_bytes
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto
from jobledger_gateway.bodies import HTTP_BODY
from jobledger_gateway.transcoder import Dialect
from support.envoy import NoEnvoyError, envoy

SECONDS = 10
# Envoy may find that a body is no JSON before it finds that it is too large: 400 or 413, as its pieces come.
UNSTEADY = "B34"


@dataclass(frozen=True)
class Told:
    """An answer: its status, its JSON where it is that of a call, its headers, and whether it has a body."""

    status: int
    json: Any
    headers: Any
    has_body: bool


@asynccontextmanager
async def behind_envoy(recorder: Recorder, directory: Path) -> AsyncIterator[str]:
    """The service behind Envoy; yields Envoy's address."""
    async with listening(recorder) as target:
        with envoy(
            directory,
            descriptor_set=without_response_bodies(vectors_set()),
            services=[recorder.service.full_name],
            target=target,
        ) as address:
            yield address


def without_response_bodies(descriptor_set: bytes) -> bytes:
    """The same rules without those that keep Envoy from starting: it has `response_body` for HttpBody alone."""
    files = FileDescriptorSet.FromString(descriptor_set)
    for file in files.file:
        fields = {f".{file.package}.{it.name}": {f.name: f.type_name for f in it.field} for it in file.message_type}
        for service in file.service:
            for method in service.method:
                _clear(method, fields.get(method.output_type, {}))
    return files.SerializeToString()


def _clear(method: MethodDescriptorProto, fields: dict[str, str]) -> None:
    rule = method.options.Extensions[annotations_pb2.http]
    if rule.response_body and fields.get(rule.response_body) != f".{HTTP_BODY}":
        rule.response_body = ""


async def ask_envoy(address: str, data: bytes) -> Told | None:
    """Sends bytes as they are; None where the connection is closed without an answer."""
    return await asyncio.to_thread(_ask, address, data)


def _ask(address: str, data: bytes) -> Told | None:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.sendall(data)
        answer = http.client.HTTPResponse(connection, method=data.split(b" ")[0].decode())
        try:
            answer.begin()
            return _told(answer.status, answer.headers, answer.read())
        except http.client.HTTPException:
            return None


def _told(status: int, headers: Any, body: bytes) -> Told:
    is_json = status == 200 and headers.get("Content-Type", "").startswith("application/json") and body
    return Told(status, json.loads(body) if is_json else None, headers, bool(body))


def applies(vector: dict[str, Any]) -> bool:
    return vector["id"] != UNSTEADY and bool(vector.get("dialect", Dialect.PROTOJSON) == Dialect.PROTOJSON)


async def differences(vector: dict[str, Any], recorder: Recorder, address: str, client: Client) -> list[str]:
    """In what Envoy's answer is another than the gateway's, and its call than the vector's."""
    request = request_bytes(vector)
    prepare(recorder, vector)
    ours = await client.raw(request)
    wanted = _told(ours.status, ours.headers, ours.body)
    prepare(recorder, vector)
    told = await ask_envoy(address, request)
    if told is None:
        return ["no answer"]
    found = [*of_call(recorder, vector), *of_headers(told.headers, vector)]
    if told.status != (400 if wanted.status == 422 else wanted.status):
        found.append(f"status {told.status} for {wanted.status}")
    if "fails" in vector and not told.has_body:
        found.append("an error without a word")
    if told.json != wanted.json:
        found.append(f"json {told.json} for {wanted.json}")
    return found


async def test_envoy_agrees_on_every_vector_that_names_no_deviation_of_its(tmp_path: Path) -> None:
    recorder, told = Recorder(vectors_service()), dict[str, list[str]]()
    vectors = [vector for file in FILES for vector in lines(file) if applies(vector)]
    try:
        async with (
            behind_envoy(recorder, tmp_path) as address,
            answering(recorder, "in process", Dialect.PROTOJSON) as client,
        ):
            for vector in vectors:
                told[vector["id"]] = await differences(vector, recorder, address, client)
    except NoEnvoyError as error:
        if os.environ.get("JOBLEDGER_TEST_REQUIRE"):
            pytest.fail(f"Envoy is required here, and can't be had: {error}")
        pytest.skip(f"Envoy can't be had: {error}")
    marked = {vector["id"] for vector in vectors if "env" in vector.get("anchors", "").split()}
    assert {name: found for name, found in told.items() if found and name not in marked} == {}
    assert {name for name, found in told.items() if not found and name in marked} == set()
    assert len(told) - len(marked) > 100
