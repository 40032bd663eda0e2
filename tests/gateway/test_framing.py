"""Framing the same message for many readers."""

import pytest
from google.protobuf.message import Message
from jobledger.v1 import events_pb2, job_service_pb2
from jobledger.v1.annotations_pb2 import StreamRule
from jobledger.v1.job_pb2 import LogEntry
from jobledger.v1.job_service_pb2 import LogBatch, TailLogsResponse
from jobledger_gateway.encoding import encode_json
from jobledger_gateway.framing import BURSTS, MESSAGES, TOGETHER, Framings, JsonLines, Remembered, StreamShape
from jobledger_gateway.http_rule import RuleError
from jobledger_gateway.response_rules import response_rule

METHOD = job_service_pb2.DESCRIPTOR.services_by_name["JobService"].methods_by_name["WatchEvents"]


def framings() -> Framings:
    return Framings(StreamShape(METHOD.output_type, response_rule(METHOD).stream))


def event(number: int) -> events_pb2.Event:
    return events_pb2.Event(event_type="engine.heartbeat", sequence_number=number)


def test_the_very_same_message_is_encoded_once() -> None:
    framing, message = framings().asked_for(""), event(1)
    assert framing.message(message) is framing.message(message)
    assert framing.message(message) == framing.message(event(1))


def test_a_burst_is_its_messages_and_put_together_once() -> None:
    for accept in ("", "application/x-ndjson"):
        framing, burst = framings().asked_for(accept), [event(1), event(2)]
        assert framing.burst(burst) == framing.message(burst[0]) + framing.message(burst[1])
        assert framing.burst(burst) is framing.burst(burst)


def test_one_message_is_never_taken_for_another() -> None:
    """Also where it is gone, and another one has its place in memory."""
    framing = framings().asked_for("")
    for number in range(3 * MESSAGES):
        assert b"id: %d\n" % number in framing.burst([event(number)])


def test_an_entry_looks_the_same_singly_in_a_batch_and_coded_by_the_server() -> None:
    method = METHOD.containing_service.methods_by_name["TailLogs"]
    entries = [LogEntry(id=7 + n, job_sequence=n, message=f"é{n}") for n in range(1, 2 * TOGETHER)]
    for accept in ("", "application/x-ndjson"):
        framing = Framings(StreamShape(method.output_type, response_rule(method).stream)).asked_for(accept)
        singly = [framing.single(TailLogsResponse(log=entry)) for entry in entries]
        assert framing.single(TailLogsResponse(batch=LogBatch(logs=entries))) == b"".join(singly)
        numbers, items = [b"%d" % entry.job_sequence for entry in entries], [*map(encode_json, entries)]
        assert b"".join(framing.coded(numbers, items)) == b"".join(singly)


def test_a_batch_of_something_else_is_a_fault_in_the_rule() -> None:
    method = METHOD.containing_service.methods_by_name["TailLogs"]
    rule = StreamRule(item_field="log", batch_field="end")
    with pytest.raises(RuleError, match=r"'end' is not a repeated jobledger\.v1\.LogEntry"):
        StreamShape(method.output_type, rule)


@pytest.mark.parametrize(
    ("accept", "wants_lines"),
    [
        ("", False),
        ("*/*", False),
        ("application/json, text/plain, */*", False),
        ("text/html", False),
        ("application/x-ndjson", True),
        ("APPLICATION/X-NDJSON; Charset=utf-8", True),
        ("application/x-ndjson, */*", True),
        ("application/*", True),
        ("application/x-ndjson, text/event-stream", False),
        ("application/x-ndjsonfoo", False),
        ("text/event-stream, application/x-ndjson;q=0", False),
        ("application/x-ndjson;q=0.000, application/*", False),
        ("application/x-ndjson;q=0.1, text/event-stream; Q=0.9", False),
        ("text/event-stream;q=0.1,application/x-ndjson ; q=0.9", True),
        ("text/event-stream;q=0, */*;q=0.1", True),
        ("text/event-stream;q=0", False),
        ("application/x-ndjson;q=high, ;;, ,=", True),
    ],
)
def test_accept_says_which_framing_by_type_and_weight(accept: str, wants_lines: bool) -> None:
    assert isinstance(framings().asked_for(accept), JsonLines) is wants_lines


def test_what_is_remembered_is_bounded() -> None:
    remembered, messages = Remembered(BURSTS, 10), list[Message]()
    for number in range(3 * BURSTS):
        messages.append(event(number))
        remembered.keep(messages[-1], b"0123456789")
    assert sum(remembered.get(message) is not None for message in messages) <= BURSTS
    large = event(0)
    assert remembered.keep(large, b"01234567890") == b"01234567890"
    assert remembered.get(large) is None
