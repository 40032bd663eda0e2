"""What a receipt is compared with: the job's files, the installation's log, the keys that are trusted."""

import json
from pathlib import Path
from typing import Any

import pytest
from jobledger.receipts import KeyEntry, KeysFileError, LogProof, load_keys, verify
from jobledger.tlog import Checkpoint, InclusionProof, NoteKey, sign_checkpoint
from jobledger_server.core.merkle import Tree
from jobledger_server.core.receipts import seal
from receipt_samples import (
    KEYS,
    RECEIPT,
    REPORT,
    SEALED,
    SIGNER,
    STRANGER,
    SampleSigner,
    detail,
    failed,
    finished_record,
    receipt_of,
)

# --- artifacts ------------------------------------------------------------------------------------------------------


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.csv").write_bytes(REPORT)
    return tmp_path


def test_artifacts_that_are_what_the_receipt_says_are_ok(artifacts: Path) -> None:
    report = verify(SEALED.envelope, keys=KEYS, artifacts=artifacts)
    assert report.exit_code == 0
    assert report.checks[-1].name == "artifact:out/report.csv"


@pytest.mark.parametrize(("content", "reason"), [(REPORT + b"x", "bytes"), (REPORT[::-1], "sha256")])
def test_a_swapped_artifact_is_refused(artifacts: Path, content: bytes, reason: str) -> None:
    (artifacts / "out" / "report.csv").write_bytes(content)
    report = verify(SEALED.envelope, keys=KEYS, artifacts=artifacts)
    assert (report.exit_code, failed(report)) == (1, {"artifact:out/report.csv"})
    assert reason in detail(report, "artifact:out/report.csv")


def test_an_artifact_that_is_not_there_could_not_be_checked(artifacts: Path) -> None:
    (artifacts / "out" / "report.csv").unlink()
    report = verify(SEALED.envelope, keys=KEYS, artifacts=artifacts)
    assert (report.exit_code, failed(report)) == (2, set())


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "out/../../secret", "link/secret"])
def test_no_file_outside_the_directory_is_read(artifacts: Path, path: str) -> None:
    """A receipt comes from elsewhere: it must not make the verifier say what is in other files."""
    inside = artifacts / "inside"
    inside.mkdir()
    (artifacts / "secret").write_bytes(REPORT)
    (inside / "link").symlink_to(artifacts)
    receipt = receipt_of(finished_record(), outputs=[(path, len(REPORT), RECEIPT["outputs"][0]["sha256"])])
    report = verify(seal(receipt, SIGNER).envelope, keys=KEYS, artifacts=inside)
    assert failed(report) == {f"artifact:{path}"}
    assert "leads out" in detail(report, f"artifact:{path}")


def test_a_path_that_no_file_can_have_could_not_be_checked(artifacts: Path) -> None:
    receipt = receipt_of(finished_record(), outputs=[("nul\0", 1, "aa" * 32)])
    assert verify(seal(receipt, SIGNER).envelope, keys=KEYS, artifacts=artifacts).exit_code == 2


# --- the log --------------------------------------------------------------------------------------------------------


def log_proof(*leaves: bytes, index: int = 1) -> LogProof:
    tree = Tree(leaves)
    key = NoteKey(name="example.com/log", public_key=STRANGER.key.public_key().public_bytes_raw())
    note = sign_checkpoint(Checkpoint(origin=key.name, size=len(tree), root=tree.root()), key, STRANGER.key.sign)
    return LogProof(str(InclusionProof(index=index, path=tuple(tree.inclusion(index)), note=note)), str(key))


def test_a_proof_of_inclusion_holds_for_the_receipt_that_is_in_the_log() -> None:
    report = verify(SEALED.envelope, keys=KEYS, log_proof=log_proof(b"a", SEALED.leaf, b"c"))
    assert report.exit_code == 0
    assert detail(report, "log_inclusion") == "leaf index 1, counted from 0, of 3 receipts in example.com/log"


def test_a_proof_of_another_receipt_is_refused() -> None:
    report = verify(SEALED.envelope, keys=KEYS, log_proof=log_proof(b"a", b"b", SEALED.leaf))
    assert (report.exit_code, failed(report)) == (1, {"log_inclusion"})


def test_a_proof_of_another_log_is_refused() -> None:
    proof = log_proof(b"a", SEALED.leaf)
    other = NoteKey(name="example.com/log", public_key=SIGNER.key.public_key().public_bytes_raw())
    report = verify(SEALED.envelope, keys=KEYS, log_proof=LogProof(proof.text, str(other)))
    assert failed(report) == {"log_inclusion"}


# --- keys files -----------------------------------------------------------------------------------------------------


def keys_file(directory: Path, document: Any) -> Path:
    path = directory / "keys.json"
    path.write_text(json.dumps(document))
    return path


def key_member(signer: SampleSigner = SIGNER, **changes: Any) -> dict[str, Any]:
    pem = signer.public_key_pem.decode()
    return {"key_id": signer.key_id, "algorithm": "ed25519", "public_key_pem": pem, "revoked_at": None} | changes


def test_keys_are_read_with_what_was_revoked(tmp_path: Path) -> None:
    members = [key_member(), key_member(STRANGER, revoked_at="2026-02-01T00:00:00Z")]
    keys = load_keys(keys_file(tmp_path, {"keys": members}))
    assert keys == {
        SIGNER.key_id: KeyEntry(SIGNER.public_key_pem),
        STRANGER.key_id: KeyEntry(STRANGER.public_key_pem, "2026-02-01T00:00:00Z"),
    }
    assert verify(SEALED.envelope, keys=keys).exit_code == 0


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"keys": {}},
        {"keys": ["x"]},
        {"keys": [key_member(algorithm="rsa")]},
        {"keys": [key_member(key_id=STRANGER.key_id)]},
        {"keys": [key_member(public_key_pem="hello")]},
        {"keys": [key_member(public_key_pem="-----BEGIN PUBLIC KEY-----\nå\n-----END PUBLIC KEY-----")]},
    ],
)
def test_a_keys_file_that_cannot_be_used_is_named(tmp_path: Path, document: Any) -> None:
    path = keys_file(tmp_path, document)
    with pytest.raises(KeysFileError, match=str(path)):
        load_keys(path)
