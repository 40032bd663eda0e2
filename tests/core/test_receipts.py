"""Receipts: what they say, that they always can be made, and that the same job gives the same bytes."""

import base64
import hashlib
import json
import math
from typing import Any

import pytest
from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger import dsse, strict_json
from jobledger.receipt_format import canonical, receipt_hash
from jobledger_server.core.ports import LogSummary
from jobledger_server.core.receipts import seal
from receipt_samples import (
    ENVIRONMENT,
    LOG,
    REPORT,
    REPORT_SHA256,
    SampleSigner,
    envelope,
    finished_record,
    receipt_of,
)

FIELDS = [
    "receipt_version", "receipt_status", "run_id", "job_id", "attempt", "timestamps", "environment", "source_pins",
    "config_snapshot", "command", "inputs", "outputs", "refused", "log", "summary", "requested_by", "cancelled_by",
    "receipt_hash",
]  # fmt: skip
# Of the sample job, signed with the sample key. If they change, receipts that exist no longer mean what they did:
# that takes a new receipt_version.
PINNED_HASH = "sha256:b5e9ed9988f08f27f56e87a59f1e2eee50950b1d080455153a8c455b29ebcc5f"
PINNED_ENVELOPE = "f55b1a17d0a066279ad1ec26c96d34af7cacf58d00cd2e5f7c1ecfb7d3e2562a"


def config_receipt(config: Struct) -> dict[str, Any]:
    record = finished_record()
    record.job.spec.config.CopyFrom(config)
    return receipt_of(record)


def test_a_receipt_has_the_fields_of_its_version_in_their_order() -> None:
    assert list(receipt_of(finished_record())) == FIELDS


def test_the_declared_type_of_a_job_is_among_what_it_is_made_from() -> None:
    record = finished_record()
    pins = receipt_of(record)["source_pins"]
    assert "job_type" not in pins
    record.job.job_type = "train"
    assert receipt_of(record)["source_pins"] == {**pins, "job_type": "train"}


def test_a_completed_job_has_a_final_receipt_that_says_what_ran() -> None:
    receipt = receipt_of(finished_record())
    assert receipt["receipt_status"] == "final"
    assert receipt["timestamps"] == {
        "created": "2026-01-02T03:04:05.000001Z",
        "started": "2026-01-02T03:04:06.500000Z",
        "completed": "2026-01-02T03:04:07.000000Z",
    }
    assert receipt["command"] == ["make", "report"]
    assert receipt["config_snapshot"] == {"rows": 42, "ratio": 0.5, "name": "räksmörgås"}
    assert receipt["inputs"] == [
        {"type": "file", "reference": None, "file_path": "/data/in.csv", "sha256": "cd" * 32},
        {"type": "reference", "reference": "s3://bucket/key", "file_path": None, "sha256": None},
    ]
    assert receipt["outputs"] == [{"path": "out/report.csv", "size_bytes": len(REPORT), "sha256": REPORT_SHA256}]
    assert receipt["refused"] == [{"path": "link", "reason": "a symbolic link"}]
    assert receipt["log"] == {"entries": 3, "sha256": "ab" * 32}
    assert receipt["summary"] == {
        "status": "completed",
        "exit_code": 0,
        "signal": None,
        "warnings_count": 1,
        "errors_count": 0,
        "error_code": None,
        "error_message": None,
    }
    assert (receipt["requested_by"], receipt["cancelled_by"]) == ("tok_alice", None)


def test_a_failed_job_has_a_partial_receipt_that_says_why() -> None:
    failure = {"error_code": "E_JOB_EXIT_NONZERO", "error_message": "exit code 3", "exit_code": 3}
    receipt = receipt_of(finished_record(state="JOB_STATE_FAILED", **failure))
    assert receipt["receipt_status"] == "partial"
    assert receipt["summary"] | failure == receipt["summary"]
    assert receipt["summary"]["status"] == "failed"


def test_a_cancelled_job_has_a_partial_receipt_that_says_who_cancelled_it() -> None:
    receipt = receipt_of(finished_record(state="JOB_STATE_CANCELLED", signal=15, exit_code=None))
    assert (receipt["receipt_status"], receipt["cancelled_by"]) == ("partial", "tok_bob")
    assert (receipt["summary"]["signal"], receipt["summary"]["exit_code"]) == (15, None)


def test_a_job_that_never_started_has_a_receipt_with_nothing_in_it() -> None:
    record = finished_record(state="JOB_STATE_CANCELLED", started_at=None, attempt=0, exit_code=None)
    receipt = receipt_of(record, log=LogSummary(), inputs={}, outputs=[], refused=[], source_pins=None)
    assert receipt["timestamps"]["started"] is None
    assert receipt["log"] == {"entries": 0, "sha256": None}
    assert receipt["inputs"][0]["sha256"] is None
    assert (receipt["outputs"], receipt["refused"], receipt["source_pins"]) == ([], [], {})


@pytest.mark.parametrize("state", ["JOB_STATE_QUEUED", "JOB_STATE_RUNNING", "JOB_STATE_CANCELLING"])
def test_a_job_that_is_not_over_has_no_receipt(state: str) -> None:
    with pytest.raises(ValueError, match="not over"):
        receipt_of(finished_record(state=state))


def test_the_hash_is_over_everything_but_itself() -> None:
    receipt = receipt_of(finished_record())
    rest = {name: value for name, value in receipt.items() if name != "receipt_hash"}
    assert receipt["receipt_hash"] == "sha256:" + hashlib.sha256(canonical(rest)).hexdigest()


def test_the_bytes_of_a_receipt_are_pinned() -> None:
    receipt = receipt_of(finished_record())
    sealed = seal(receipt, SampleSigner())
    assert receipt["receipt_hash"] == PINNED_HASH
    assert hashlib.sha256(sealed.envelope).hexdigest() == PINNED_ENVELOPE


def test_the_order_in_which_things_were_found_does_not_matter() -> None:
    outputs = [("b", 1, "bb" * 32), ("a", 2, "aa" * 32)]
    refused = [("z", "a device"), ("y", "a link")]
    one = receipt_of(finished_record(), outputs=outputs, refused=refused)
    other = receipt_of(finished_record(), outputs=outputs[::-1], refused=refused[::-1])
    assert seal(one, SampleSigner()) == seal(other, SampleSigner())


# --- values that have no canonical form -----------------------------------------------------------------------------


def test_whole_numbers_of_the_configuration_are_integers() -> None:
    config = Struct()
    config.update({"whole": 3.0, "negative_zero": -0.0, "largest": 2.0**53 - 1, "beyond": 2.0**53, "huge": 1e300})
    snapshot = config_receipt(config)["config_snapshot"]
    assert snapshot == {"whole": 3, "negative_zero": 0, "largest": 2**53 - 1, "beyond": 2.0**53, "huge": 1e300}
    assert isinstance(snapshot["whole"], int)
    assert isinstance(snapshot["largest"], int)


def test_numbers_that_json_has_no_form_for_become_text() -> None:
    config = Struct(
        fields={
            "nan": Value(number_value=math.nan),
            "infinite": Value(number_value=math.inf),
            "minus": Value(number_value=-math.inf),
            "unset": Value(),
            "null": Value(null_value=NULL_VALUE),
        }
    )
    assert config_receipt(config)["config_snapshot"] == {
        "nan": "NaN",
        "infinite": "Infinity",
        "minus": "-Infinity",
        "unset": None,
        "null": None,
    }


def test_integers_that_doubles_cannot_hold_become_text() -> None:
    receipt = receipt_of(finished_record(), outputs=[("sparse", 2**53, "aa" * 32), ("fits", 2**53 - 1, "aa" * 32)])
    assert [it["size_bytes"] for it in receipt["outputs"]] == [2**53 - 1, str(2**53)]


def test_names_that_are_not_utf8_are_percent_encoded() -> None:
    """`os.fsdecode` turns such bytes into lone surrogates, which JSON in UTF-8 can't carry."""
    name = b"caf\xe9/\xff".decode("utf-8", "surrogateescape")
    receipt = receipt_of(finished_record(), refused=[(name, "its name is not UTF-8"), ("\ud800", "odd")])
    assert [it["path"] for it in receipt["refused"]] == ["caf%E9/%FF", "%ED%A0%80"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(deadline=None)  # a busy machine is no finding
@given(st.dictionaries(st.text(st.characters(codec="utf-8")), JSON_VALUES, max_size=4))
def test_any_configuration_gives_a_receipt_that_reads_back_to_the_same_bytes(config: dict[str, Any]) -> None:
    struct = Struct()
    struct.update(config)
    sealed = seal(config_receipt(struct), SampleSigner())
    read = strict_json.loads(sealed.receipt)
    assert canonical(read) == sealed.receipt
    assert isinstance(read, dict)
    assert receipt_hash(read) == read["receipt_hash"]


@given(st.binary(max_size=40), st.integers(0, 2**63 - 1))
def test_any_file_name_and_size_gives_a_receipt(name: bytes, size: int) -> None:
    path = name.decode("utf-8", "surrogateescape")
    receipt = receipt_of(finished_record(), outputs=[(path, size, "aa" * 32)], refused=[(path, path)])
    assert seal(receipt, SampleSigner()) == seal(receipt, SampleSigner())


# --- statement and envelope -----------------------------------------------------------------------------------------


def test_the_statement_is_about_the_receipt_and_then_its_outputs() -> None:
    receipt = receipt_of(finished_record())
    sealed = seal(receipt, SampleSigner())
    payload = dsse.decode(sealed.envelope).payload
    assert json.loads(payload) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": "receipt", "digest": {"sha256": receipt["receipt_hash"].removeprefix("sha256:")}},
            {"name": "outputs/out/report.csv", "digest": {"sha256": REPORT_SHA256}},
        ],
        "predicateType": "https://jobledger.dev/receipt/v1",
        "predicate": receipt,
    }
    assert canonical(json.loads(payload)) == payload
    assert canonical(receipt) == sealed.receipt
    assert sealed.leaf == hashlib.sha256(payload).digest()


def test_the_envelope_is_in_standard_base64_and_names_its_key() -> None:
    """URL-safe base64 and a missing keyid are allowed, but there are verifiers that can't read them."""
    signer = SampleSigner()
    document = json.loads(envelope(b"\xfb\xff\xfe", signer))
    assert list(document) == ["payload", "payloadType", "signatures"]
    assert document["payload"] == "+//+"
    assert document["payloadType"] == "application/vnd.in-toto+json"
    (signature,) = document["signatures"]
    assert signature["keyid"] == signer.key_id
    signed = b"DSSEv1 28 application/vnd.in-toto+json 3 \xfb\xff\xfe"
    signer.key.public_key().verify(base64.b64decode(signature["sig"]), signed)


def test_what_is_signed_is_the_encoding_of_the_dsse_specification() -> None:
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_every_sample_value_of_the_environment_is_in_the_receipt() -> None:
    environment = receipt_of(finished_record())["environment"]
    assert list(environment) == ["engine_version", "os", "platform", "python", "host", "isolation"]
    assert environment["isolation"] == ENVIRONMENT.isolation


def test_counts_come_from_the_log() -> None:
    summary = receipt_of(finished_record())["summary"]
    assert (summary["warnings_count"], summary["errors_count"]) == (LOG.warnings, LOG.errors)
