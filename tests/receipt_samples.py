"""For the tests of receipts: jobs that are over, keys that are always the same, and a good receipt made of both."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import json_format
from jobledger import dsse
from jobledger.receipt_format import PAYLOAD_TYPE, statement
from jobledger.receipts import VerificationReport, key_id
from jobledger.v1.job_pb2 import Job, JobState
from jobledger_server.core.ports import CancelIntent, JobRecord, LogSummary
from jobledger_server.core.receipts import Environment, build_receipt, seal

JOB_ID = "job_01hzy3v8x9k2m4n6p8q0r2s4t6"
REPORT = b"name,total\nwidgets,42\n"
REPORT_SHA256 = hashlib.sha256(REPORT).hexdigest()

ENVIRONMENT = Environment(
    engine_version="0.1.0", os="Linux", platform="Linux-6.1-x86_64", python="3.11.7", host="build-1", isolation="none"
)
LOG = LogSummary(entries=3, sha256="ab" * 32, warnings=1, errors=0)


@dataclass(frozen=True)
class SampleSigner:
    """Signs with a key made from one byte, so that signatures never change."""

    seed: int = 1
    key: Ed25519PrivateKey = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", Ed25519PrivateKey.from_private_bytes(bytes([self.seed]) * 32))

    @property
    def public_key_pem(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def key_id(self) -> str:
        return key_id(self.public_key_pem)

    def sign(self, data: bytes) -> tuple[str, bytes]:
        return self.key_id, self.key.sign(data)


def finished_record(**changes: Any) -> JobRecord:
    """A job that completed; `changes` are fields of it in ProtoJSON."""
    job = {
        "job_id": JOB_ID,
        "run_id": "run_01hzy3v8x9k2m4n6p8q0r2s4t7",
        "state": "JOB_STATE_COMPLETED",
        "attempt": 1,
        "created_at": "2026-01-02T03:04:05.000001Z",
        "started_at": "2026-01-02T03:04:06.5Z",
        "completed_at": "2026-01-02T03:04:07Z",
        "exit_code": 0,
        "created_by": "tok_alice",
        "spec": {
            "command": ["make", "report"],
            "config": {"rows": 42, "ratio": 0.5, "name": "räksmörgås"},
            "inputs": [
                {"type": "INPUT_TYPE_FILE", "file_path": "/data/in.csv"},
                {"type": "INPUT_TYPE_REFERENCE", "reference": "s3://bucket/key"},
            ],
        },
    }
    message = json_format.ParseDict(job | changes, Job())
    cancelled = message.state == JobState.JOB_STATE_CANCELLED
    intent = CancelIntent(requested_at=1, requested_by="tok_bob", reason="", grace_seconds=10)
    return JobRecord(job=message, last_activity_at=0, cancel=intent if cancelled else None)


def receipt_of(record: JobRecord, **changes: Any) -> dict[str, Any]:
    """The receipt of a job, with one output and one refused file unless said otherwise."""
    arguments: dict[str, Any] = {
        "log": LOG,
        "environment": ENVIRONMENT,
        "inputs": {"/data/in.csv": "cd" * 32},
        "outputs": [("out/report.csv", len(REPORT), REPORT_SHA256)],
        "refused": [("link", "a symbolic link")],
        "source_pins": {
            "git_commit": "0123456789abcdef0123456789abcdef01234567",
            "git_dirty": "no",
            "tool:make": f"sha256:{'ef' * 32} /usr/bin/make",
        },
    }
    return build_receipt(record=record, **arguments | changes)


def envelope(payload: bytes, signer: SampleSigner) -> bytes:
    """The DSSE envelope around a payload, whatever that is."""
    key_id, signature = signer.sign(dsse.pae(PAYLOAD_TYPE, payload))
    return dsse.encode(dsse.Envelope(PAYLOAD_TYPE, payload, (dsse.Signature(key_id, signature),)))


SIGNER, STRANGER = SampleSigner(1), SampleSigner(2)
KEYS = {SIGNER.key_id: SIGNER.public_key_pem}
RECEIPT = receipt_of(finished_record())
SEALED = seal(RECEIPT, SIGNER)
STATEMENT = statement(RECEIPT)


def failed(report: VerificationReport) -> set[str]:
    return {check.name for check in report.checks if check.status == "failed"}


def detail(report: VerificationReport, name: str) -> str:
    (check,) = [check for check in report.checks if check.name == name]
    return check.detail
