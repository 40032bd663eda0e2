"""The plain dialect, held against protobuf's own JSON."""

import json
import re
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger.v1 import events_pb2, job_pb2, job_service_pb2
from jobledger_gateway.decoding import decode
from jobledger_gateway.encoding import encode_json

# A negative zero is written as 0: adding 0.0 takes its sign away.
DOUBLES = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TIMES = st.builds(
    Timestamp,
    seconds=st.integers(-62135596800, 253402300799),
    nanos=st.integers(0, 999_999).map(lambda micros: micros * 1000),
)
SPANS = st.integers(-(10**18), 10**18).map(
    lambda nanos: Duration(
        seconds=(abs(nanos) // 10**9) * (1 if nanos >= 0 else -1),
        nanos=(abs(nanos) % 10**9) * (1 if nanos >= 0 else -1),
    )
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | DOUBLES | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def struct(value: dict[str, Any]) -> Struct:
    made = Struct()
    made.update(value)
    return made


STRUCTS = st.dictionaries(TEXTS, JSON_VALUES, max_size=3).map(struct)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these fields set, the others not."""
    return st.fixed_dictionaries({}, optional=fields)


SPECS = some(
    job_type=TEXTS,
    command=st.lists(TEXTS, max_size=3),
    env=st.dictionaries(TEXTS, TEXTS, max_size=3),
    stdin=TEXTS,
    inputs=st.lists(
        some(type=st.sampled_from([1, 2]), reference=TEXTS).map(lambda given: job_pb2.JobInput(**given)), max_size=2
    ),
    config=STRUCTS,
    timeout=SPANS,
    priority=st.sampled_from([0, 1, 2, 3]),
    max_attempts=st.integers(-(2**31), 2**31 - 1),
    limits=some(memory_bytes=st.integers(-(2**63), 2**63 - 1), cpu_time=SPANS).map(
        lambda given: job_pb2.JobLimits(**given)
    ),
    labels=st.dictionaries(TEXTS, TEXTS, max_size=3),
).map(lambda given: job_pb2.JobSpec(**given))

JOBS = some(
    job_id=TEXTS,
    state=st.sampled_from(range(7)),
    created_at=TIMES,
    progress_percent=st.floats(allow_nan=False),
    spec=SPECS,
    queue_position=st.integers(-(2**63), 2**63 - 1),
    exit_code=st.integers(-(2**31), 2**31 - 1),
    artifacts=st.lists(st.builds(job_pb2.Artifact, id=st.integers(0, 2**53), name=TEXTS), max_size=2),
).map(lambda given: job_pb2.Job(**given))

ENTRIES = some(
    id=st.integers(0, 2**63 - 1), timestamp_utc=TIMES, level=st.sampled_from(range(6)), message=TEXTS, payload=STRUCTS
).map(lambda given: job_pb2.LogEntry(**given))


@settings(max_examples=60, deadline=None)
@given(SPECS | JOBS | ENTRIES)
def test_what_is_encoded_decodes_to_the_same_message(message: Message) -> None:
    again = type(message)()
    assert decode(again, json.loads(encode_json(message))) == []
    assert again == message


@settings(max_examples=60, deadline=None)
@given(SPECS | JOBS | ENTRIES)
def test_canonical_protojson_decodes_to_the_same_message(message: Message) -> None:
    for proto_names in (True, False):
        canonical = json_format.MessageToDict(message, preserving_proto_field_name=proto_names)
        again = type(message)()
        assert decode(again, json.loads(json.dumps(canonical))) == []
        assert again == message


@settings(max_examples=60, deadline=None)
@given(SPECS | JOBS | ENTRIES)
def test_protobuf_itself_reads_what_is_encoded(message: Message) -> None:
    """Once enum names have their prefix back, and null stands only where canonical JSON allows it."""
    plain = json.loads(encode_json(message))
    again = type(message)()
    json_format.ParseDict(canonical_enums(message.DESCRIPTOR, plain), again)
    assert again == message


def canonical_enums(descriptor: Any, value: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, item in value.items():
        field = descriptor.fields_by_name[name]
        if field.enum_type is not None:
            prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", field.enum_type.name).upper()
            out[name] = f"{prefix}_{item.upper()}"
        elif field.message_type is not None and field.message_type.full_name.startswith("jobledger."):
            if field.message_type.GetOptions().map_entry or item is None:
                out[name] = item
            elif field.is_repeated:
                out[name] = [canonical_enums(field.message_type, each) for each in item]
            else:
                out[name] = canonical_enums(field.message_type, item)
        else:
            out[name] = item
    return out


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(TEXTS, TEXTS, max_size=6))
def test_the_same_data_gives_the_same_bytes(labels: dict[str, str]) -> None:
    turned = dict(reversed(labels.items()))
    assert encode_json(job_pb2.JobSpec(labels=labels)) == encode_json(job_pb2.JobSpec(labels=turned))
    assert encode_json(struct(labels)) == encode_json(struct(turned))


def test_every_declared_field_is_there_in_the_order_of_the_proto() -> None:
    encoded = orjson.loads(encode_json(job_pb2.Job()))
    assert list(encoded) == [field.name for field in job_pb2.Job.DESCRIPTOR.fields]
    assert encoded["created_at"] is None
    assert encoded["artifacts"] == []
    assert encoded["labels"] == {}
    assert encoded["error_code"] is None
    assert encoded["attempt"] == 0
    assert encoded["state"] == "unspecified"


def test_times_have_six_digits_and_durations_as_many_as_it_takes() -> None:
    job = job_pb2.Job(created_at=Timestamp(seconds=0, nanos=1_999))
    assert orjson.loads(encode_json(job))["created_at"] == "1970-01-01T00:00:00.000001Z"
    for span, text in [
        ((1, 500_000_000), "1.5s"),
        ((-1, -1), "-1.000000001s"),
        ((0, -5 * 10**8), "-0.5s"),
        ((3, 0), "3s"),
    ]:
        spec = job_pb2.JobSpec(timeout=Duration(seconds=span[0], nanos=span[1]))
        assert orjson.loads(encode_json(spec))["timeout"] == text


def test_whole_numbers_of_a_struct_are_written_as_such() -> None:
    assert encode_json(struct({"b": 1, "a": 1.5, "c": 1e300, "d": -0.0})) == b'{"a":1.5,"b":1,"c":1e+300,"d":0}'


def test_numbers_that_json_lacks_are_names() -> None:
    job = job_pb2.Job(progress_percent=float("nan"))
    assert orjson.loads(encode_json(job))["progress_percent"] == "NaN"


def test_an_unknown_enum_value_is_its_number() -> None:
    assert orjson.loads(encode_json(job_pb2.Job(state=77)))["state"] == 77  # type: ignore[arg-type]


def test_a_flattened_message_is_replaced_by_its_fields_and_leaves_nothing_when_unset() -> None:
    event = events_pb2.Event(event_type="job.progress", sequence_number=5)
    event.job.job_id = "job_1"
    event.progress.phase = "build"
    assert orjson.loads(encode_json(event)) == {
        "event_type": "job.progress",
        "sequence_number": 5,
        "timestamp_utc": None,
        "job_id": "job_1",
        "run_id": "",
        "workspace_id": "",
        "phase": "build",
        "progress_percent": None,
        "items_completed": None,
        "items_total": None,
        "eta_seconds": None,
    }
    bare = events_pb2.Event(event_type="replay.complete", replay_complete=events_pb2.ReplayComplete(replayed_count=0))
    assert list(orjson.loads(encode_json(bare))) == ["event_type", "timestamp_utc", "replayed_count", "last_sequence"]


BAD_SPECS: list[tuple[dict[str, Any], str, str]] = [
    ({"nope": 1}, "nope", "no such field"),
    ({"limits": {"nope": 1}}, "limits.nope", "no such field"),
    ({"job_type": 5}, "job_type", "string"),
    ({"command": "ls -l"}, "command", "list"),
    ({"command": ["ls", None]}, "command[1]", "null"),
    ({"command": ["ls", 5]}, "command[1]", "string"),
    ({"env": {"A": 1}}, "env.A", "string"),
    ({"env": ["A"]}, "env", "object"),
    ({"priority": "urgent"}, "priority", "low, normal, high"),
    ({"priority": 9}, "priority", "low, normal, high"),
    ({"priority": True}, "priority", "low, normal, high"),
    ({"max_attempts": 1.5}, "max_attempts", "whole number"),
    ({"max_attempts": True}, "max_attempts", "whole number"),
    ({"max_attempts": " 1"}, "max_attempts", "whole number"),
    ({"max_attempts": 2**31}, "max_attempts", "from -2147483648 to 2147483647"),
    ({"limits": {"memory_bytes": 2**63}}, "limits.memory_bytes", "from -9223372036854775808"),
    ({"limits": {"memory_bytes": "1e3"}}, "limits.memory_bytes", "whole number"),
    ({"limits": []}, "limits", "object"),
    ({"timeout": "1h"}, "timeout", "duration"),
    ({"timeout": "5"}, "timeout", "duration"),
    ({"timeout": True}, "timeout", "duration"),
    ({"timeout": 1e300}, "timeout", "from -315576000000s"),
    ({"config": [1]}, "config", "object"),
    ({"config": {"n": 2**53 + 1}}, "config", "lose digits"),
    ({"config": {"n": float("inf")}}, "config", "too large"),
    ({"inputs": [{"type": "file"}, "x"]}, "inputs[1]", "object"),
    ({"job_type": "a", "jobType": "b"}, "jobType", "twice"),
    ({"rerunOf": None, "rerun_of": None}, "rerun_of", "twice"),
]


@pytest.mark.parametrize(("value", "field", "why"), BAD_SPECS)
def test_a_value_that_breaks_a_rule_is_named(value: dict[str, Any], field: str, why: str) -> None:
    (violation,) = decode(job_pb2.JobSpec(), value)
    assert violation.field == field
    assert why in violation.description


def test_all_violations_are_told_at_once() -> None:
    found = decode(job_pb2.JobSpec(), {"nope": 1, "command": 5, "limits": {"open_files": "x"}})
    assert [violation.field for violation in found] == ["nope", "command", "limits.open_files"]


def test_two_of_a_oneof_are_refused_but_null_sets_nothing() -> None:
    (violation,) = decode(job_service_pb2.TailLogsResponse(), {"log": {}, "end": {}})
    assert "only one of log, end" in violation.description
    message = job_service_pb2.TailLogsResponse()
    assert decode(message, {"log": None, "end": {}}) == []
    assert message.WhichOneof("item") == "end"


@pytest.mark.parametrize(
    ("given", "seconds", "nanos"),
    [("1.5s", 1, 5 * 10**8), (1.5, 1, 5 * 10**8), (5, 5, 0), ("-0.5s", 0, -5 * 10**8), (0.1, 0, 10**8), (1e-9, 0, 1)],
)
def test_a_duration_is_text_or_a_number_of_seconds(given: Any, seconds: int, nanos: int) -> None:
    spec = job_pb2.JobSpec()
    assert decode(spec, {"timeout": given}) == []
    assert spec.timeout == Duration(seconds=seconds, nanos=nanos)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-01-02T03:04:05Z", 1704164645),
        ("2024-01-02T03:04:05+02:00", 1704157445),
        ("0001-01-01T00:00:00Z", -62135596800),
        ("9999-12-31T23:59:59Z", 253402300799),
    ],
)
def test_a_time_may_have_an_offset(text: str, seconds: int) -> None:
    job = job_pb2.Job()
    assert decode(job, {"created_at": text}) == []
    assert job.created_at.seconds == seconds


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-02", "2024-01-02t03:04:05z", "2024-01-02T03:04:05", "2024-13-02T03:04:05Z", "2024-02-30T00:00:00Z",
        "10000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "2024-01-02T03:04:05.1234567890Z", "2024-01-02T24:00:00Z",
        "2024-01-02T03:04:60Z", "2024-01-02 03:04:05Z", 5, "2024-01-02T03:04:05+99:00", "",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: Any) -> None:
    assert decode(job_pb2.Job(), {"created_at": text})
