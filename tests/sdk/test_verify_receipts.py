"""What the offline check of a receipt accepts, and by which check it refuses everything else."""

import base64
import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st
from jobledger.receipt_format import canonical, receipt_hash
from jobledger.receipts import KeyEntry, verify
from jobledger_server.core.receipts import seal
from receipt_samples import (
    JOB_ID,
    KEYS,
    RECEIPT,
    SEALED,
    SIGNER,
    STATEMENT,
    STRANGER,
    SampleSigner,
    detail,
    envelope,
    failed,
    finished_record,
    receipt_of,
)


def with_payload(payload: bytes) -> bytes:
    """The good envelope around another payload: what someone without the key can make."""
    return json.dumps(json.loads(SEALED.envelope) | {"payload": base64.b64encode(payload).decode()}).encode()


def resigned(document: Any, signer: SampleSigner = SIGNER) -> bytes:
    """A statement that the key's holder signed, though it is wrong."""
    return envelope(canonical(document), signer)


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths of all values in a document that are no object or list, and of those that are empty."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [found for key, member in members for found in leaves(member, (*path, key))]
    yield from inner or [path]


def replaced(document: Any, path: tuple[str | int, ...]) -> Any:
    changed = copy.deepcopy(document)
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    old = holder[path[-1]]
    # The least change: one character, one unit; a null becomes a text.
    match old:
        case str():
            holder[path[-1]] = old[:-1] + ("0" if old[-1:] != "0" else "1")
        case int() | float():
            holder[path[-1]] = old + 1
        case _:
            holder[path[-1]] = "changed"
    return changed


# --- what is accepted -----------------------------------------------------------------------------------------------


def test_a_good_receipt_is_valid_and_says_what_it_does_not_prove() -> None:
    report = verify(SEALED.envelope, keys=KEYS)
    assert report.exit_code == 0
    assert {check.status for check in report.checks} == {"ok"}
    assert report.receipt == RECEIPT
    assert len(report.caveats) == 6
    assert all("does not prove" in caveat for caveat in report.caveats)


@pytest.mark.parametrize("state", ["JOB_STATE_FAILED", "JOB_STATE_CANCELLED"])
def test_receipts_of_jobs_that_did_not_complete_are_valid_too(state: str) -> None:
    receipt = receipt_of(finished_record(state=state, exit_code=None), outputs=[])
    assert verify(seal(receipt, SIGNER).envelope, keys=KEYS).exit_code == 0


def test_numbers_that_only_doubles_hold_do_not_make_a_receipt_invalid() -> None:
    spec = {"config": {"huge": 1e20, "small": 1e-7, "large": 2.0**53}}
    receipt = receipt_of(finished_record(spec=spec))
    assert verify(seal(receipt, SIGNER).envelope, keys=KEYS).exit_code == 0


def test_an_envelope_may_be_spelled_otherwise_as_dsse_allows() -> None:
    """Only the payload is signed: another alphabet, more members and unknown signatures change nothing."""
    document = json.loads(SEALED.envelope)
    (signature,) = document["signatures"]
    signature["sig"] = signature["sig"].translate(str.maketrans("+/", "-_"))
    document["signatures"].insert(0, {"sig": "AAAA"})
    document["note"] = "hello"
    assert verify(json.dumps(document, indent=2).encode(), keys=KEYS).exit_code == 0


def test_without_keys_the_signature_is_not_checked_and_that_is_no_success() -> None:
    report = verify(SEALED.envelope, keys=None)
    assert (report.exit_code, failed(report)) == (2, set())
    assert "no keys" in detail(report, "signature")


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(leaves(STATEMENT), key=str), ids=lambda path: ".".join(map(str, path)))
def test_a_change_in_any_field_breaks_the_signature(path: tuple[str | int, ...]) -> None:
    report = verify(with_payload(canonical(replaced(STATEMENT, path))), keys=KEYS)
    assert report.exit_code == 1
    assert "signature" in failed(report)


@pytest.mark.parametrize("path", sorted(leaves(RECEIPT), key=str), ids=lambda path: ".".join(map(str, path)))
def test_a_change_in_any_field_shows_even_when_it_is_signed_again(path: tuple[str | int, ...]) -> None:
    changed = STATEMENT | {"predicate": replaced(RECEIPT, path)}
    report = verify(resigned(changed), keys=KEYS)
    expected = "statement" if path == ("receipt_version",) else "receipt_hash"
    assert expected in failed(report)
    assert "signature" not in failed(report)


@given(st.integers(0, len(canonical(STATEMENT)) - 1), st.integers(1, 255))
def test_a_change_of_any_byte_of_the_payload_breaks_the_signature(position: int, difference: int) -> None:
    payload = bytearray(canonical(STATEMENT))
    payload[position] ^= difference
    report = verify(with_payload(bytes(payload)), keys=KEYS)
    assert report.exit_code == 1
    assert "signature" in failed(report)


def drop_output_subject(document: dict[str, Any]) -> None:
    document["subject"].pop()


def swap_output_subject(document: dict[str, Any]) -> None:
    document["subject"][1]["digest"]["sha256"] = "00" * 32


def swap_receipt_subject(document: dict[str, Any]) -> None:
    document["subject"][0]["digest"]["sha256"] = "00" * 32


def claim_another_output(document: dict[str, Any]) -> None:
    receipt = document["predicate"]
    receipt["outputs"].append({"path": "more", "size_bytes": 1, "sha256": "00" * 32})
    receipt["receipt_hash"] = receipt_hash(receipt)
    document["subject"][0]["digest"]["sha256"] = receipt["receipt_hash"].removeprefix("sha256:")


def put_another_jobs_receipt(document: dict[str, Any]) -> None:
    other = receipt_of(finished_record(job_id="job_01hzy3v8x9k2m4n6p8q0r2s4t9"))
    document["predicate"] = other


def change_predicate_type(document: dict[str, Any]) -> None:
    document["predicateType"] = "https://slsa.dev/provenance/v1"


def change_statement_type(document: dict[str, Any]) -> None:
    document["_type"] = "https://in-toto.io/Statement/v0.1"


def drop_predicate(document: dict[str, Any]) -> None:
    del document["predicate"]


def spoil_output(document: dict[str, Any]) -> None:
    document["predicate"]["outputs"] = ["out/report.csv"]


@pytest.mark.parametrize(
    ("tamper", "names"),
    [
        (drop_output_subject, {"output_subjects"}),
        (swap_output_subject, {"output_subjects"}),
        (claim_another_output, {"output_subjects"}),
        (swap_receipt_subject, {"receipt_subject"}),
        (put_another_jobs_receipt, {"receipt_subject"}),
        (change_predicate_type, {"predicate_type"}),
        (change_statement_type, {"statement"}),
        (drop_predicate, {"statement"}),
        (spoil_output, {"statement"}),
    ],
)
def test_a_signed_statement_that_contradicts_itself_is_refused(
    tamper: Callable[[dict[str, Any]], None], names: set[str]
) -> None:
    document = copy.deepcopy(STATEMENT)
    tamper(document)
    report = verify(resigned(document), keys=KEYS)
    assert (report.exit_code, failed(report)) == (1, names)


def test_a_payload_written_anew_is_refused_although_it_means_the_same() -> None:
    payload = json.dumps(STATEMENT, sort_keys=True).encode()
    assert failed(verify(with_payload(payload), keys=KEYS)) == {"signature"}
    assert failed(verify(envelope(payload, SIGNER), keys=KEYS)) == {"payload_canonical"}


@pytest.mark.parametrize(
    "payload",
    [
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":1e400}',
        b'{"a":' + b"9" * 400 + b"}",
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b"",
    ],
)
def test_a_payload_that_is_not_strict_json_is_refused(payload: bytes) -> None:
    report = verify(envelope(payload, SIGNER), keys=KEYS)
    assert (report.exit_code, failed(report)) == (1, {"payload"})


@pytest.mark.parametrize("payload", [b"[" * 100_000, b"[" * 900 + b"]" * 900])
def test_a_payload_that_is_nested_deeply_is_refused(payload: bytes) -> None:
    assert verify(envelope(payload, SIGNER), keys=KEYS).exit_code == 1


@pytest.mark.parametrize("payload", [rb'"\ud800"', rb'{"\ud800":1}', b"[]", b"null"])
def test_a_payload_that_is_no_statement_is_refused(payload: bytes) -> None:
    assert "statement" in failed(verify(envelope(payload, SIGNER), keys=KEYS))


def test_another_payload_type_is_refused() -> None:
    document = json.loads(SEALED.envelope) | {"payloadType": "application/json"}
    assert failed(verify(json.dumps(document).encode(), keys=KEYS)) == {"payload_type", "signature"}


def test_a_foreign_key_is_refused_by_name() -> None:
    report = verify(seal(RECEIPT, STRANGER).envelope, keys=KEYS)
    assert (report.exit_code, failed(report)) == (1, {"key_known"})
    assert STRANGER.key_id in detail(report, "key_known")
    assert failed(verify(SEALED.envelope, keys={})) == {"key_known"}


def test_a_foreign_signature_under_a_known_keys_name_is_refused() -> None:
    document = json.loads(seal(RECEIPT, STRANGER).envelope)
    document["signatures"][0]["keyid"] = SIGNER.key_id
    assert failed(verify(json.dumps(document).encode(), keys=KEYS)) == {"signature"}


def test_a_revoked_key_is_refused_although_its_signature_holds() -> None:
    keys = {SIGNER.key_id: KeyEntry(SIGNER.public_key_pem, revoked_at="2026-02-01T00:00:00Z")}
    report = verify(SEALED.envelope, keys=keys)
    assert (report.exit_code, failed(report)) == (1, {"key_not_revoked"})
    assert "2026-02-01" in detail(report, "key_not_revoked")


def test_a_key_of_another_kind_signs_nothing() -> None:
    other = generate_private_key(SECP256R1()).public_key()
    pem = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert failed(verify(SEALED.envelope, keys={SIGNER.key_id: pem})) == {"signature"}


def test_the_receipt_of_another_job_is_refused_where_the_job_is_named() -> None:
    assert verify(SEALED.envelope, keys=KEYS, job_id=JOB_ID).exit_code == 0
    report = verify(SEALED.envelope, keys=KEYS, job_id="job_01hzy3v8x9k2m4n6p8q0r2s4t9")
    assert (report.exit_code, failed(report)) == (1, {"job_id"})
    assert JOB_ID in detail(report, "job_id")


GOOD = json.loads(SEALED.envelope)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        GOOD | {"payload": "not base64!"},
        GOOD | {"payload": GOOD["payload"][:-1]},
        GOOD | {"payload": 1},
        GOOD | {"signatures": []},
        GOOD | {"signatures": ["x"]},
        GOOD | {"signatures": [{"keyid": SIGNER.key_id}]},
        GOOD | {"signatures": [{"keyid": SIGNER.key_id, "sig": "å"}]},
        GOOD | {"signatures": [{"keyid": 1, "sig": "AAAA"}]},
    ],
)
def test_what_is_no_envelope_is_refused(document: Any) -> None:
    report = verify(json.dumps(document).encode(), keys=KEYS)
    assert (report.exit_code, failed(report), report.receipt) == (1, {"envelope"}, None)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\xff", b"{", SEALED.envelope[:-1], b'{"payload":"",' + GOOD["payload"].encode()]
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    assert failed(verify(data, keys=KEYS)) == {"envelope"}


@given(st.binary(max_size=200))
def test_no_bytes_make_the_check_itself_fail(data: bytes) -> None:
    assert verify(data, keys=KEYS).exit_code == 1
    assert verify(envelope(data, SIGNER), keys=KEYS).exit_code == 1


def test_a_receipt_without_its_envelope_cannot_be_checked() -> None:
    report = verify(SEALED.receipt, keys=KEYS)
    assert (report.exit_code, failed(report)) == (2, set())
    assert "dsse" in detail(report, "envelope")


def test_missing_libraries_are_named_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    report = verify(SEALED.envelope, keys=KEYS)
    assert report.exit_code == 2
    assert "pip install 'jobledger[verify]'" in detail(report, "libraries")
