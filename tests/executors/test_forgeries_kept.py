"""Whatever a job states, sensible or not, what is taken of it can be stored and made a receipt of."""

import json
import os
from dataclasses import replace
from typing import Any

import pytest
from executors.forging import GOOD, HUGE, STARTED, recorded
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger_server.core import artifacts, transitions
from jobledger_server.core.ports import EndReason, Outcome, Running
from jobledger_server.core.receipts import Environment, build_receipt, unsigned
from jobledger_server.executors.local import remains
from jobledger_server.executors.local.attempt import Attempt
from jobledger_server.executors.local.control_dir import ControlDir
from jobledger_server.executors.local.process_tree import process_stat
from jobledger_server.executors.local.remains import end_remains
from jobledger_server.executors.local.statements import read_declared, read_launched, read_progress
from support.records import NOW, a_record

# What a message to a client may be, at most, and room for what else is in it.
MOST_RECEIPT = 3_000_000
ENVIRONMENT = Environment(engine_version="1", os="linux", platform="p", python="3", host="h")

NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**17, 10**18, HUGE]),
    st.sampled_from([0.5, -0.0, 1e300, 2.0**63, float("nan"), float("inf"), float("-inf")]),
    st.integers(),
    st.floats(),
)
TEXTS = st.one_of(
    st.sampled_from(["", "\0", "\ud800", "\udcff", "a", "a//b", "./a", "../a", "/etc", "CON", "x" * 3000, "a" * 64]),
    st.sampled_from([reason.value for reason in EndReason]),
    st.text(max_size=20),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
ANYTHING = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
LOGS = st.fixed_dictionaries({}, optional=dict.fromkeys(("entries", "sha256", "warnings", "errors"), LEAVES))
NAMES = st.sampled_from(["a", "./a", "a//", "b", "../b", "\ud800", "\0", "CON"])
PATHS = st.lists(NAMES, max_size=8) | st.lists(NAMES | LEAVES, max_size=4) | ANYTHING


def forged(like: dict[str, object], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[object]:
    """A statement with one or two of its fields as nobody expects them, or another one."""
    strange = {**dict.fromkeys(like, LEAVES | ANYTHING), **fields}
    changes = st.one_of(*(st.tuples(st.just(name), values) for name, values in strange.items()))
    return st.lists(changes, max_size=2).map(lambda changed: {**like, **dict(changed)}) | ANYTHING


ENDS = forged(dict(GOOD), log=LOGS, withheld=PATHS, ignored_messages=NUMBERS, signal=NUMBERS)
REPORTED = {"phase": "x", "percent": 5, "items_total": 3, "eta_seconds": 1.5}
STATEMENTS = st.fixed_dictionaries(
    {
        "spec": forged({"protocol": 2, "log_dir": "/x", "log_bytes": 1, "grace_seconds": 1.0, "isolation": {}}),
        "start": forged(dict(STARTED), cgroup=TEXTS),
        "end": ENDS,
        "exit": ENDS,
        "artifacts": forged({"paths": ["a"]}, paths=PATHS, misdeclared=PATHS),
        "progress": forged(dict(REPORTED), items_completed=NUMBERS, percent=NUMBERS, phase=TEXTS),
    }
)


@given(said=STATEMENTS)
@settings(deadline=None)
def test_whatever_is_forged_can_be_stored_and_made_a_receipt_of(
    tmp_path_factory: pytest.TempPathFactory, said: dict[str, object]
) -> None:
    control = ControlDir(tmp_path_factory.mktemp("control") / "job_x.1")
    control.path.mkdir()
    for name in ("spec", "exit", "artifacts", "progress"):
        getattr(control, name).write_text(json.dumps(said[name]))
    control.started.write_bytes(recorded(said["start"], said["end"]))
    launched = read_launched(control)
    assert launched.log_dir is None or os.fsencode(launched.log_dir)
    attempt = Attempt(job_id="job_x", number=1, control_root=control.path.parent)
    view = attempt.view()
    with pytest.MonkeyPatch.context() as patch:
        # Not all that runs on this machine, a hundred times.
        patch.setattr(remains, "processes", lambda: filter(None, [process_stat(os.getpid())]))
        assert not end_remains(attempt.traces())
    running = view.running or Running(pid=1, started_at=NOW)
    change = transitions.started(a_record(), 1, running, NOW)
    assert change is not None
    for report in filter(None, [read_progress(control)]):
        told = transitions.progressed(change.record, 1, report, NOW)
        assert told is not None
        assert told.record.job.SerializeToString()
        assert [event.SerializeToString() for event in told.events]
    outcome = view.outcome or Outcome(reason=EndReason.LOST, declared=read_declared(control))
    assert_can_be_stored(change, outcome)


def assert_can_be_stored(started: Any, outcome: Outcome) -> None:
    """As `service.finishing` has it stored: declarations, the end, and the receipt."""
    assert len(set(outcome.declared)) == len(outcome.declared)
    declared = artifacts.declared(started.record, 1, outcome.declared, first_id=1, now=NOW)
    assert declared is not None
    assert len([artifact.SerializeToString() for artifact in declared.artifacts]) == len(outcome.declared)
    assert all(0 <= inode < 2**64 for inode in outcome.withheld)
    ended = transitions.ended(started.record, 1, outcome, NOW)
    assert ended is not None
    assert ended.record.job.SerializeToString()
    assert [event.SerializeToString() for event in ended.events]
    receipt = build_receipt(
        record=ended.record,
        log=outcome.log,
        environment=replace(ENVIRONMENT, isolation=outcome.isolation),
        inputs={},
        outputs=[],
        refused=[(path, "declared") for path in outcome.misdeclared],
    )
    assert len(unsigned(receipt).payload) < MOST_RECEIPT
