"""An answer that a strong validator names is encoded once, and not sent to who has it."""

import pytest
from gateway.client import Client
from gateway.engine import Engine, Refusal
from jobledger.v1 import job_pb2, job_service_pb2
from jobledger_gateway import answers
from jobledger_gateway.answers import Answers
from jobledger_gateway.conditions import etag_matches

LOGS = "/v1/jobs/job_1/logs"


def a_page(message: str) -> job_service_pb2.GetLogsResponse:
    return job_service_pb2.GetLogsResponse(logs=[job_pb2.LogEntry(message=message)], total=1)


async def test_the_tag_of_a_call_is_that_of_its_answer(client: Client, engine: Engine) -> None:
    engine.on("GetLogs", a_page("one"), metadata=[("etag", '"a"')])
    answer = await client.get(LOGS)
    assert (answer.status, answer.headers["ETag"], answer.json["logs"][0]["message"]) == (200, '"a"', "one")


@pytest.mark.parametrize("tag", ['"a"', 'W/"a"'])
@pytest.mark.parametrize("condition", ['"a"', 'W/"a"', '"b", "a"', '"b", W/"a"', "*"])
async def test_who_has_the_answer_is_not_sent_it_again(
    client: Client, engine: Engine, condition: str, tag: str
) -> None:
    engine.on("GetLogs", a_page("one"), metadata=[("etag", tag)])
    answer = await client.get(LOGS, headers={"If-None-Match": condition})
    assert (answer.status, answer.headers["ETag"], answer.body) == (304, tag, b"")


def test_a_weak_tag_says_of_no_bytes_that_they_are_the_same() -> None:
    """A part of an answer must not be put to parts of another."""
    tags = ('"a"', 'W/"a"')
    assert [(mine, its) for mine in tags for its in tags if etag_matches(mine, its, weak=False)] == [('"a"', '"a"')]


async def test_who_has_another_answer_is_sent_this_one(client: Client, engine: Engine) -> None:
    engine.on("GetLogs", a_page("one"), metadata=[("etag", '"a"')])
    assert (await client.get(LOGS, headers={"If-None-Match": '"b"'})).json["total"] == 1
    engine.on("GetLogs", a_page("one"))
    assert (await client.get(LOGS, headers={"If-None-Match": "*"})).json["total"] == 1


async def test_the_server_is_asked_every_time(client: Client, engine: Engine) -> None:
    """Whatever is kept, and whatever tag a client names: it is the server who says who may see it, and that it is."""
    engine.on("GetLogs", a_page("one"), metadata=[("etag", '"a"')])
    await client.get(LOGS)
    engine.on("GetLogs", Refusal("JOB_NOT_FOUND"))
    for headers in ({}, {"If-None-Match": '"a"'}):
        assert (await client.get(LOGS, headers=headers)).status == 404
    assert (await client.get(LOGS, token=None)).status == 401


async def test_another_tag_is_another_answer(client: Client, engine: Engine) -> None:
    for tag, message in (('"a"', "one"), ('"b"', "two"), ('"a"', "one")):
        engine.on("GetLogs", a_page(message), metadata=[("etag", tag)])
        assert (await client.get(LOGS)).json["logs"][0]["message"] == message


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Messages that were encoded."""
    seen: list[str] = []

    def encode(page: job_service_pb2.GetLogsResponse) -> bytes:
        seen.append(page.logs[0].message)
        return page.logs[0].message.encode()

    monkeypatch.setattr(answers, "encode_json", encode)
    return seen


def test_a_tagged_answer_is_encoded_once_for_each_method(encoded: list[str]) -> None:
    kept = Answers()
    for method in ("m.A", "m.A", "m.B"):
        assert kept.json(method, '"a"', a_page(method)) == method.encode()
    assert encoded == ["m.A", "m.B"]


@pytest.mark.parametrize("tag", [None, 'W/"a"'])
def test_without_a_strong_tag_nothing_is_kept(encoded: list[str], tag: str | None) -> None:
    kept = Answers()
    assert [kept.json("m", tag, a_page(text)) for text in ("1", "2")] == [b"1", b"2"]
    assert encoded == ["1", "2"]


def test_what_a_read_answers_is_known_by_its_bytes(encoded: list[str]) -> None:
    kept = Answers()
    for method, text in (("m.A", "1"), ("m.A", "1"), ("m.A", "2"), ("m.B", "1"), ("m.A", "1")):
        assert kept.json(method, None, a_page(text), is_read=True) == text.encode()
    assert encoded == ["1", "2", "1"]


def test_what_a_change_answers_is_never_kept(encoded: list[str]) -> None:
    kept = Answers()
    assert {kept.json("m", None, a_page("1")) for _ in range(3)} == {b"1"}
    assert len(encoded) == 3


def test_a_long_answer_is_not_known_by_its_bytes(encoded: list[str]) -> None:
    kept, text = Answers(), "x" * answers.MOST_BYTES_OF_POLLED
    assert {kept.json("m", None, a_page(text), is_read=True) for _ in range(2)} == {text.encode()}
    assert len(encoded) == 2


def test_what_was_not_used_the_longest_makes_room(encoded: list[str]) -> None:
    kept = Answers(most_bytes=4)  # of JSON and tags
    for tag in ("a", "b", "a", "c", "a", "b"):
        kept.json("m", tag, a_page(tag))
    assert encoded == ["a", "b", "c", "b"]
