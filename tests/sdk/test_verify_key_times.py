"""What the times of a key say of the receipts that it signed."""

import json
from pathlib import Path
from typing import Any

import pytest
from jobledger.receipts import KeyEntry, KeysFileError, VerificationReport, load_keys, verify
from jobledger_server.core.receipts import seal
from receipt_samples import SEALED, SIGNER, detail, failed, finished_record, receipt_of

ENDED = "2026-01-02T03:04:07Z"
NEXT = "2026-01-02T03:04:08Z"


def check(envelope: bytes = SEALED.envelope, **times: str) -> VerificationReport:
    return verify(envelope, keys={SIGNER.key_id: KeyEntry(SIGNER.public_key_pem, **times)})


@pytest.mark.parametrize("until", [ENDED, NEXT, "2026-01-02T04:04:07.000001+01:00"])
def test_a_key_that_signed_when_the_job_ended_is_ok(until: str) -> None:
    report = check(valid_from="2026-01-01T00:00:00Z", valid_until=until)
    assert (report.exit_code, failed(report)) == (0, set())
    assert detail(report, "key_valid_then") == "the key signed at 2026-01-02T03:04:07.000000Z"


@pytest.mark.parametrize("until", ["2026-01-02T03:04:06.999999Z", "2025-12-31T00:00:00Z"])
def test_a_key_that_had_been_replaced_when_the_job_ended_is_refused(until: str) -> None:
    report = check(valid_from="2025-01-01T00:00:00Z", valid_until=until)
    assert (report.exit_code, failed(report)) == (1, {"key_valid_then"})
    assert f"was replaced at {until}" in detail(report, "key_valid_then")


def test_a_job_that_ended_before_its_key_was_made_is_no_contradiction_and_is_told() -> None:
    """As where no server ran when it ended, or the clock was set back."""
    report = check(valid_from=NEXT)
    assert report.exit_code == 0
    assert f"made at {NEXT} and signed later" in detail(report, "key_valid_then")


def test_a_key_without_times_is_not_asked_for_them() -> None:
    assert "key_valid_then" not in {it.name for it in check().checks}


def test_a_receipt_that_does_not_tell_when_the_job_ended_is_refused_where_times_count() -> None:
    receipt = receipt_of(finished_record(completed_at=None))
    envelope = seal(receipt, SIGNER).envelope
    assert check(envelope).exit_code == 0
    assert failed(check(envelope, valid_until=NEXT)) == {"key_valid_then"}


def test_a_revoked_key_is_refused_whenever_it_signed() -> None:
    report = check(valid_from="2026-01-01T00:00:00Z", valid_until=NEXT, revoked_at="2026-05-01T00:00:00Z")
    assert failed(report) == {"key_not_revoked"}


def member(**times: Any) -> dict[str, Any]:
    pem = SIGNER.public_key_pem.decode()
    return {"key_id": SIGNER.key_id, "algorithm": "ed25519", "public_key_pem": pem, **times}


def test_times_are_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    times = {"valid_from": "2026-01-01T00:00:00Z", "valid_until": "2026-02-01T00:00:00.123Z", "revoked_at": None}
    path.write_text(json.dumps({"keys": [member(**times)]}))
    assert load_keys(path) == {SIGNER.key_id: KeyEntry(SIGNER.public_key_pem, **times)}


@pytest.mark.parametrize("value", ["yesterday", "2026-02-01", "2026-02-01T00:00:00", 5, {}, ""])
@pytest.mark.parametrize("name", ["valid_from", "valid_until", "revoked_at"])
def test_a_file_with_a_time_that_is_none_is_refused_as_a_whole(tmp_path: Path, name: str, value: Any) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [member(**{name: value})]}))
    with pytest.raises(KeysFileError, match=name):
        load_keys(path)


def test_a_file_that_has_a_key_twice_is_refused(tmp_path: Path) -> None:
    """Revoked in the one place, not in the other: which is it?"""
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [member(revoked_at="2026-05-01T00:00:00Z"), member()]}))
    with pytest.raises(KeysFileError, match="twice"):
        load_keys(path)
