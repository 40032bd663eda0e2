"""Bytes: whole, in parts, conditionally, and never cut without a sign."""

import hashlib
from collections.abc import Iterator
from typing import Any

import aiohttp
import grpc
import pytest
from gateway.client import Client
from gateway.engine import Bare, Engine, Refusal
from google.api import httpbody_pb2
from hypothesis import given
from hypothesis import strategies as st
from jobledger_gateway.conditions import etag_matches
from jobledger_gateway.content import ByteRange, parse_range

DATA = bytes(range(256)) * 4
TAG = hashlib.sha256(DATA).hexdigest()
PATH = "/v1/jobs/j/artifacts/7/content"


@pytest.fixture
def artifact(engine: Engine) -> Engine:
    """An engine that serves DATA, in pieces of 100 bytes, as its contract says."""

    def serve(request: Any) -> Any:
        start = request.offset if request.offset >= 0 else max(0, len(DATA) + request.offset)
        if start >= len(DATA):
            return Refusal("RANGE_NOT_SATISFIABLE", metadata={"size": str(len(DATA))})
        end = start + request.length if request.HasField("length") else len(DATA)
        return list(pieces(DATA[start:end]))

    metadata = [
        ("x-content-length", str(len(DATA))),
        ("etag", f'"{TAG}"'),
        ("content-disposition", 'attachment; filename="a.bin"'),
    ]
    engine.on("DownloadArtifact", serve, metadata=metadata)
    return engine


def pieces(data: bytes) -> Iterator[httpbody_pb2.HttpBody]:
    for at in range(0, len(data), 100):
        yield httpbody_pb2.HttpBody(content_type="application/x-thing", data=data[at : at + 100])


async def test_the_whole_comes_with_length_type_and_tag(client: Client, artifact: Engine) -> None:
    answer = await client.get(PATH)
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert answer.headers["Content-Type"] == "application/x-thing"
    assert answer.headers["ETag"] == f'"{TAG}"'
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="a.bin"'
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert "x-content-length" not in answer.headers


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=1000-", 1000, 1024),
        ("bytes=1000-99999999999999999999999", 1000, 1024),
        ("bytes=-24", 1000, 1024),
        ("bytes=-5000", 0, 1024),
        ("bytes=0-", 0, 1024),
        ("Bytes=10-19", 10, 20),
    ],
)
async def test_a_range_is_answered_with_that_part(
    client: Client, artifact: Engine, header: str, start: int, end: int
) -> None:
    answer = await client.get(PATH, headers={"Range": header})
    assert (answer.status, answer.body) == (206, DATA[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/1024"
    assert answer.headers["Content-Length"] == str(end - start)


@pytest.mark.parametrize(
    "header", ["bytes=5-4", "bytes=0-1,5-6", "lines=0-1", "bytes=", "bytes=-", "bytes=a-b", "bytes 0-1"]
)
async def test_a_range_that_is_none_of_ours_is_overlooked(client: Client, artifact: Engine, header: str) -> None:
    answer = await client.get(PATH, headers={"Range": header})
    assert (answer.status, answer.body) == (200, DATA)


@pytest.mark.parametrize("header", ["bytes=1024-", "bytes=99999999999999999999-", "bytes=-0", "bytes=-000"])
async def test_a_range_outside_tells_the_size(client: Client, artifact: Engine, header: str) -> None:
    answer = await client.get(PATH, headers={"Range": header})
    assert (answer.status, answer.json["error_code"]) == (416, "E_RANGE_NOT_SATISFIABLE")
    assert answer.headers["Content-Range"] == "bytes */1024"
    assert answer.json["details"] == {"size": 1024}
    assert answer.json["message"] == "The range lies outside of the content, which has 1024 bytes"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Range": f'"{TAG}"', "Range": "bytes=0-9"}, 206),
        ({"If-Range": '"other"', "Range": "bytes=0-9"}, 200),
        ({"If-Range": f'W/"{TAG}"', "Range": "bytes=0-9"}, 200),
        ({"If-Range": '"other"', "Range": "bytes=5000-"}, 200),
        ({"If-None-Match": f'"{TAG}"'}, 304),
        ({"If-None-Match": f'"x", W/"{TAG}"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-None-Match": f'"{TAG}"', "Range": "bytes=0-9"}, 304),
        ({"If-None-Match": '"other"', "Range": "bytes=0-9"}, 206),
        ({"If-Match": f'"x", "{TAG}"'}, 200),
        ({"If-Match": "*", "Range": "bytes=0-9"}, 206),
        ({"If-Match": f'"{TAG}"', "If-None-Match": f'"{TAG}"'}, 304),
        ({"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 200),
    ],
)
async def test_conditions_are_held_against_the_tag(
    client: Client, artifact: Engine, headers: dict[str, str], status: int
) -> None:
    answer = await client.get(PATH, headers=headers)
    assert answer.status == status
    assert answer.headers["ETag"] == f'"{TAG}"'
    if status == 304:
        assert answer.body == b""


@pytest.mark.parametrize("tag", ['"other"', f'W/"{TAG}"', TAG, ""])
@pytest.mark.parametrize("more", [{}, {"Range": "bytes=0-9"}, {"Range": "bytes=5000-"}, {"If-None-Match": f'"{TAG}"'}])
async def test_who_wants_other_bytes_than_there_are_gets_none(
    client: Client, artifact: Engine, tag: str, more: dict[str, str]
) -> None:
    for method in ("GET", "HEAD"):
        answer = await client.ask(method, PATH, headers={"If-Match": tag, **more})
        assert answer.status == 412
    answer = await client.get(PATH, headers={"If-Match": tag, **more})
    assert answer.json["error_code"] == "E_PRECONDITION_FAILED"
    assert answer.headers["ETag"] == f'"{TAG}"'


async def test_head_tells_the_size_and_sends_nothing(client: Client, artifact: Engine) -> None:
    answer = await client.ask("HEAD", PATH, headers={"Range": "bytes=0-9"})
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == "1024"


async def test_the_fields_of_a_range_are_no_parameters(client: Client, artifact: Engine) -> None:
    assert (await client.get(f"{PATH}?offset=5")).status == 422


async def test_empty_content_is_answered_as_such(client: Client, engine: Engine) -> None:
    engine.on("GetLogContent", [], metadata=[("x-content-length", "0")])
    answer = await client.get("/v1/jobs/j/logs/content")
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-5", "bytes=5-2"])
async def test_nothing_has_no_parts(client: Client, engine: Engine, header: str) -> None:
    engine.on("DownloadArtifact", [], metadata=[("x-content-length", "0"), ("etag", '"t"')])
    answer = await client.get(PATH, headers={"Range": header})
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")
    assert "Content-Range" not in answer.headers


FAILURE = Bare(grpc.StatusCode.DATA_LOSS)


@pytest.mark.parametrize(
    ("size", "last"),
    [("200", [FAILURE]), ("200", []), (None, [FAILURE])],
    ids=["failing", "ending early", "failing, of unknown length"],
)
async def test_content_that_breaks_off_breaks_the_connection(
    client: Client, engine: Engine, size: str | None, last: list[Bare]
) -> None:
    metadata = [("x-content-length", size)] if size else []
    engine.on("GetLogContent", [*pieces(b"x" * 100), *last], metadata=metadata)
    with pytest.raises(aiohttp.ClientError):
        await client.get("/v1/jobs/j/logs/content")


async def test_content_longer_than_announced_breaks_the_connection(client: Client, engine: Engine) -> None:
    engine.on("GetLogContent", list(pieces(b"x" * 300)), metadata=[("x-content-length", "250")])
    with pytest.raises(aiohttp.ClientError):
        await client.get("/v1/jobs/j/logs/content")


async def test_a_refusal_before_the_first_byte_is_a_plain_error(client: Client, engine: Engine) -> None:
    engine.on("DownloadArtifact", Refusal("ARTIFACT_QUARANTINED"))
    answer = await client.get(PATH)
    assert (answer.status, answer.json["error_code"]) == (409, "E_ARTIFACT_QUARANTINED")


async def test_a_receipt_is_served_as_it_is_stored(client: Client, engine: Engine) -> None:
    stored = b'{"b":1,"a":2}'
    metadata = [("content-disposition", 'attachment; filename="receipt-j.json"'), ("etag", '"t"')]
    engine.on("GetReceipt", httpbody_pb2.HttpBody(content_type="application/json", data=stored), metadata=metadata)
    answer = await client.get("/v1/jobs/j/receipt?format=dsse")
    assert (answer.status, answer.body) == (200, stored)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="receipt-j.json"'
    assert engine.requests("GetReceipt")[0].format == 2
    assert (await client.get("/v1/jobs/j/receipt", headers={"If-None-Match": '"t"'})).status == 304


async def test_a_media_type_that_is_none_is_opaque(client: Client, engine: Engine) -> None:
    engine.on("GetReceipt", httpbody_pb2.HttpBody(content_type="text/html\r\nX: y", data=b"x"))
    assert (await client.get("/v1/jobs/j/receipt")).headers["Content-Type"] == "application/octet-stream"


@given(first=st.integers(0, 50), last=st.integers(0, 50), size=st.integers(51, 99))
def test_a_range_covers_what_it_says(first: int, last: int, size: int) -> None:
    found = parse_range(f"bytes={first}-{last}")
    if first > last:
        assert found is None
    else:
        assert found == ByteRange(first, last - first + 1)
        assert found.within(size) == (first, last + 1)


def test_a_content_without_a_tag_matches_no_condition() -> None:
    assert not etag_matches("*", None, weak=True)
