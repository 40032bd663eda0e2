"""What is told quickly to be good, is good: protovalidate says so, too."""

from typing import Any

import protovalidate
import pytest
from gateway.messages import messages
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.job_pb2 import JobInput, JobLimits, JobSpec
from jobledger_server.api.interceptors.quick_rules import QuickRules
from jobledger_server.core.policy import SERVICES

TYPES = sorted({method.input_type for it in SERVICES for method in it.methods}, key=lambda kind: kind.full_name)
RULES = QuickRules(protovalidate.Validator(), TYPES)

# At the bounds of the rules and just beyond, in characters and in bytes; and what a pattern may be fooled with.
LENGTHS = [1, 64, 65, 127, 128, 129, 256, 257, 1024, 1025, 4096, 4097]
ODD = ["", "a", "A", "_", "0", "-", ".", "a\n", "\na", "a\nb", "a=b", "\x00", "a\x00", "é", "\u0661", " ", "a b"]
TEXT = st.sampled_from(ODD + [letter * length for letter in "aA_0é" for length in LENGTHS])
MAPS = st.dictionaries(TEXT, TEXT, max_size=3) | st.builds(
    lambda n: {f"k{i}": "" for i in range(n)}, st.sampled_from([64, 65])
)
NUMBER = st.sampled_from([-(2**63), -1, 0, 1, 15, 16, 65535, 65536, 1048575, 1048576, 1048577, 2**63 - 1])
SMALL = st.sampled_from([-(2**31), -1, 0, 1, 3, 4, 100, 101, 2**31 - 1])
# The longest that a Duration may have; and parts that none may.
LONGEST = 315_576_000_000
SPAN = st.builds(
    Duration,
    seconds=st.sampled_from([-(2**63), -1, 0, 1, 300, 301, 31536000, 31536001, LONGEST, LONGEST + 1, 2**63 - 1]),
    nanos=st.sampled_from([-(2**31), -1, 0, 1, 10**9 - 1, 10**9, 2**31 - 1]),
)
LISTS = st.lists(TEXT, max_size=3) | st.sampled_from([[""] * 256, ["a"] * 256, ["a"] * 257])


def some(make: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Messages with some of these fields."""
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: make(**given))


LIMITS = some(JobLimits, cpu_time=SPAN, memory_bytes=NUMBER, open_files=NUMBER, disk_bytes=NUMBER, log_bytes=NUMBER)
SPECS = some(
    JobSpec,
    **dict.fromkeys(("job_type", "working_dir", "stdin", "workspace_id", "queue", "rerun_of"), TEXT),
    **dict.fromkeys(("command", "artifacts", "tools"), LISTS),
    **dict.fromkeys(("env", "labels"), MAPS),
    **dict.fromkeys(("timeout", "queue_timeout", "grace_period", "retry_backoff"), SPAN),
    inputs=st.lists(some(JobInput, type=st.sampled_from([0, 1, 2, 3]), reference=TEXT, file_path=TEXT), max_size=2),
    config=st.just(Struct()),
    priority=SMALL,
    max_attempts=SMALL,
    limits=LIMITS,
)

SPANS: list[Any] = [
    lambda span: pb.CreateJobRequest(spec=JobSpec(timeout=span)),
    lambda span: pb.CreateJobRequest(spec=JobSpec(grace_period=span)),
    lambda span: pb.CreateJobRequest(spec=JobSpec(retry_backoff=span)),
    lambda span: pb.CreateJobRequest(spec=JobSpec(limits=JobLimits(cpu_time=span))),
    lambda span: pb.CancelJobRequest(grace_period=span),
    lambda span: pb.WaitJobRequest(timeout=span),
]


def agrees(request: Any) -> None:
    assert not (RULES.surely_kept(request) and protovalidate.collect_violations(request)), request


@settings(deadline=None)
@given(some(pb.CreateJobRequest, spec=SPECS, idempotency_key=TEXT))
@example(pb.CreateJobRequest())
@example(pb.CreateJobRequest(spec=JobSpec(env={"A\n": ""})))
@example(pb.CreateJobRequest(spec=JobSpec(priority=7)))  # type: ignore[arg-type]  # what a client of tomorrow may send
def test_no_bad_request_to_create_a_job_is_taken_for_good(request: Any) -> None:
    agrees(request)


@settings(deadline=None)
@given(st.sampled_from(TYPES).flatmap(messages))
def test_no_bad_request_of_any_kind_is_taken_for_good(request: Any) -> None:
    agrees(request)


@settings(deadline=None)
@given(st.sampled_from(["job_type", "workspace_id", "queue", "working_dir", "rerun_of"]), TEXT)
def test_a_bad_value_in_one_field_is_not_taken_for_good(name: str, text: str) -> None:
    """One at a time, so that no other field is what keeps it from being told."""
    request = pb.CreateJobRequest(spec=JobSpec(**{name: text}))  # type: ignore[arg-type]
    assert RULES.surely_kept(request) == (not protovalidate.collect_violations(request))


@settings(deadline=None)
@given(st.sampled_from(["env", "labels"]), MAPS)
def test_maps_are_told_as_they_are(name: str, pairs: dict[str, str]) -> None:
    request = pb.CreateJobRequest(spec=JobSpec(**{name: pairs}))  # type: ignore[arg-type]
    assert RULES.surely_kept(request) == (not protovalidate.collect_violations(request))


@settings(deadline=None)
@given(st.sampled_from(SPANS), SPAN)
def test_spans_are_told_as_they_are(place: Any, span: Duration) -> None:
    """But for those that are negative, or none at all: protovalidate judges them."""
    request = place(span)
    told = RULES.surely_kept(request)
    if 0 <= span.nanos < 10**9 and 0 <= span.seconds < LONGEST:
        assert told == (not protovalidate.collect_violations(request))
    else:
        agrees(request)


@pytest.mark.parametrize("letter", ["a", "é", "\U0001f600"])
@pytest.mark.parametrize("size", [131072, 131076])
@pytest.mark.parametrize("field", ["command", "env"])
def test_bounds_in_bytes_hold_for_text_of_any_script(field: str, size: int, letter: str) -> None:
    """As long as allowed, and just beyond."""
    text = letter * (size // len(letter.encode()))
    spec = JobSpec(command=[text]) if field == "command" else JobSpec(env={"A": text})
    agrees(pb.CreateJobRequest(spec=spec))
    assert bool(protovalidate.collect_violations(pb.CreateJobRequest(spec=spec))) == (size > 131072)


def test_what_is_asked_most_is_told_quickly() -> None:
    spec = JobSpec(
        command=["python", "train.py", "x" * 32768],
        env={"SEED": "1"},
        labels={"team": "red"},
        queue="gpu",
        max_attempts=3,
        timeout=Duration(seconds=3600),
    )
    spec.config.update({"rate": 0.1, "layers": [1, {"of": 2}]})
    spec.limits.memory_bytes = 2**30
    assert RULES.surely_kept(pb.CreateJobRequest(spec=spec, idempotency_key="k"))


@pytest.mark.parametrize(
    "request_",
    [
        pb.CreateJobRequest(spec=JobSpec(tools=["git"])),
        pb.CreateJobRequest(spec=JobSpec(inputs=[JobInput(type=1, reference="x")])),  # type: ignore[arg-type]
        pb.CreateJobRequest(spec=JobSpec(command=["x" * 32769])),
        pb.ListJobsRequest(),
    ],
)
def test_what_it_does_not_understand_is_left_to_protovalidate(request_: Any) -> None:
    """A rule that values differ, one in CEL, and texts that may have too many bytes."""
    assert not protovalidate.collect_violations(request_)
    assert not RULES.surely_kept(request_)
