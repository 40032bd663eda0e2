"""The CLI's JSON is that of the REST API."""

import json

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from jobledger.cli.plain import plain
from jobledger.v1.events_pb2 import Event, EventJob, Progress
from jobledger.v1.job_pb2 import Job, JobPriority, JobSpec, JobState, LogEntry, LogLevel
from jobledger_gateway.encoding import encode_json

SPEC = JobSpec(
    command=["a"],
    env={"b": "1", "a": "2"},
    timeout=Duration(seconds=1, nanos=500_000_000),
    priority=JobPriority.JOB_PRIORITY_LOW,
)
ParseDict({"z": [1, 1.5, None, {"y": True}], "a": "x"}, SPEC.config)


@pytest.mark.parametrize(
    "message",
    [
        Job(),
        Job(job_id="job_1", state=JobState.JOB_STATE_RUNNING, spec=SPEC, created_at=Timestamp(seconds=5, nanos=7000)),
        LogEntry(id=1 << 60, level=LogLevel.LOG_LEVEL_WARN, message="ä"),
        Event(event_type="job.progress", sequence_number=3, job=EventJob(job_id="j"), progress=Progress(phase="p")),
        Event(event_type="replay.complete"),
    ],
)
def test_a_message_looks_as_the_gateway_writes_it(message: Message) -> None:
    expected = json.loads(encode_json(message))
    assert plain(message) == expected
    assert list(plain(message)) == list(expected)
