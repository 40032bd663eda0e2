"""Checking receipts offline: whether a key holder signed these very bytes, and whether files are what they say.

Needs `cryptography`, `jsonschema-rs` and `rfc8785`: `pip install 'jobledger[verify]'`.
"""

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobledger import dsse, receipt_format, strict_json
from jobledger.checks import (
    CAVEATS,
    INVALID,
    NOT_CHECKED,
    VALID,
    WITHOUT_CHECKPOINT,
    WITHOUT_FILES,
    WITHOUT_PROOF,
    Check,
    VerificationReport,
    holds_or_failed,
)
from jobledger.log_checks import Consistency, LogProof, log_checks
from jobledger.receipt_form import form_check
from jobledger.signing_keys import (
    KeyEntry,
    Keys,
    KeysFileError,
    key_id,
    load_keys,
    load_log_key,
    signature_checks,
    validity_checks,
)

__all__ = [
    "INVALID",
    "NOT_CHECKED",
    "VALID",
    "Check",
    "Consistency",
    "KeyEntry",
    "KeysFileError",
    "LogProof",
    "VerificationReport",
    "key_id",
    "load_keys",
    "load_log_key",
    "verify",
]


LIBRARIES = ("cryptography", "jsonschema-rs", "rfc8785")


def verify(
    envelope: bytes,
    *,
    keys: Keys | None,
    artifacts: Path | None = None,
    job_id: str | None = None,
    log_proof: LogProof | None = None,
) -> VerificationReport:
    """Checks a receipt's envelope. Never raises for what is in it: what is wrong becomes a failed check.

    Args:
        envelope: the DSSE envelope, as `GetReceipt` with format `dsse` gives it.
        keys: public keys (PEM) that are trusted, by key id; None where there are none, so that no signature is checked.
        artifacts: directory that holds the job's outputs under their paths; each is compared with the receipt.
        job_id: the job that the receipt should be of.
        log_proof: proof that the receipt is in the installation's log, and that the log is the one seen before.

    Raises:
        ValueError: one of `keys` is no public key in PEM.
    """
    lacking = [name for name in LIBRARIES if importlib.util.find_spec(name.replace("-", "_")) is None]
    if lacking:
        detail = f"{' and '.join(lacking)} not installed: pip install 'jobledger[verify]'"
        return VerificationReport(checks=[Check("libraries", "skipped", detail)])
    try:
        opened = dsse.decode(envelope)
    except ValueError as error:
        return _not_an_envelope(envelope, error)
    checks, signer = _envelope_checks(opened, keys)
    refused = any(check.status == "failed" for check in checks)
    if log_proof:
        checks += log_checks(log_proof, opened.payload)
    if refused:
        checks += _not_looked_at(artifacts)
        return VerificationReport(checks=checks, caveats=(*CAVEATS, *_gaps(checks, None)))
    statement, receipt, read = _read(opened.payload)
    checks += read
    if receipt is not None:
        checks += _content_checks(statement, receipt)
        checks += validity_checks(signer, receipt) if signer else ()
        checks += _given_checks(receipt, job_id=job_id, artifacts=artifacts)
    return VerificationReport(checks=checks, receipt=receipt, caveats=(*CAVEATS, *_gaps(checks, receipt)))


def _envelope_checks(opened: dsse.Envelope, keys: Keys | None) -> tuple[list[Check], KeyEntry | None]:
    """What is to be said of the envelope itself, and the key that signed it, if that is trusted."""
    signature, signer = signature_checks(opened, keys)
    kind = holds_or_failed("payload_type", opened.payload_type == receipt_format.PAYLOAD_TYPE, opened.payload_type)
    return [Check("envelope", "ok", "DSSE envelope"), kind, *signature], signer


def _not_looked_at(artifacts: Path | None) -> Iterator[Check]:
    """What a stranger may have written is neither told nor followed."""
    yield Check("payload", "skipped", "not looked at: anybody may have written it")
    if artifacts is not None:
        yield Check("artifacts", "skipped", "not looked at")


def _given_checks(receipt: Mapping[str, Any], *, job_id: str | None, artifacts: Path | None) -> Iterator[Check]:
    """The receipt, held against what the verifier knows of the job."""
    if job_id is not None:
        yield holds_or_failed("job_id", receipt["job_id"] == job_id, f"receipt of {receipt['job_id']}")
    if artifacts is not None:
        for output in receipt["outputs"]:
            yield _artifact_check(artifacts, output)


def _gaps(checks: Sequence[Check], receipt: Mapping[str, Any] | None) -> Iterator[str]:
    """What else would have been proven, with more at hand."""
    held = {check.name for check in checks if check.status == "ok"}
    if "log_inclusion" not in held:
        yield WITHOUT_PROOF
    if "log_consistency" not in held:
        yield WITHOUT_CHECKPOINT
    if receipt is not None and not held.issuperset(f"artifact:{output['path']}" for output in receipt["outputs"]):
        yield WITHOUT_FILES


def _read(payload: bytes) -> tuple[Any, dict[str, Any] | None, list[Check]]:
    """The statement and the receipt in it, where they can be read, and the checks of that."""
    try:
        statement = strict_json.loads(payload)
    except ValueError as error:
        return None, None, [Check("payload", "failed", f"not strict JSON: {error}")]
    checks, receipt = [_canonical_check(statement, payload)], _receipt_in(statement)
    if receipt is None:
        detail = "not an in-toto Statement v1 around a receipt of version 1"
        checks.append(Check("statement", "failed", detail))
    return statement, receipt, checks


def _not_an_envelope(data: bytes, error: ValueError) -> VerificationReport:
    try:
        document = strict_json.loads(data)
    except ValueError:
        document = None
    if isinstance(document, dict) and "receipt_version" in document:
        detail = "this is a receipt without its envelope, so nothing is signed: fetch it with format `dsse`"
        return VerificationReport(checks=[Check("envelope", "skipped", detail)], receipt=document)
    return VerificationReport(checks=[Check("envelope", "failed", f"not a DSSE envelope: {error}")])


def _canonical_check(document: object, payload: bytes) -> Check:
    try:
        same = receipt_format.canonical(document) == payload
    except ValueError as error:
        return Check("payload_canonical", "failed", str(error))
    return holds_or_failed(
        "payload_canonical", same, "RFC 8785 form" if same else "it was written anew since it was signed"
    )


def _receipt_in(statement: object) -> dict[str, Any] | None:
    """The predicate, where it has the shape that the other checks rely on."""
    match statement:
        case {
            "_type": receipt_format.STATEMENT_TYPE,
            "subject": list(),
            "predicateType": str(),
            "predicate": {
                "receipt_version": receipt_format.RECEIPT_VERSION,
                "job_id": str(),
                "outputs": list(outputs),
                "receipt_hash": str(),
            } as receipt,
        } if all(map(_is_output, outputs)) and not isinstance(receipt["receipt_version"], bool):
            return dict(receipt)
        case _:
            return None


def _is_output(member: object) -> bool:
    match member:
        case {"path": str(), "size_bytes": int() | str() as size, "sha256": str()}:
            return not isinstance(size, bool)
        case _:
            return False


def _content_checks(statement: Any, receipt: dict[str, Any]) -> Iterator[Check]:
    predicate_type = statement["predicateType"]
    yield Check("statement", "ok", "in-toto Statement v1")
    yield holds_or_failed("predicate_type", predicate_type == receipt_format.PREDICATE_TYPE, predicate_type)
    yield form_check(receipt)
    try:
        computed = receipt_format.receipt_hash(receipt)
    except ValueError as error:
        yield Check("receipt_hash", "failed", str(error))
    else:
        stated = receipt["receipt_hash"]
        yield holds_or_failed("receipt_hash", computed == stated, stated if computed == stated else f"it is {computed}")
    first, *others = receipt_format.subjects(receipt)
    yield holds_or_failed(
        "receipt_subject", statement["subject"][:1] == [first], "the first subject is the receipt's hash"
    )
    yield holds_or_failed(
        "output_subjects", statement["subject"][1:] == others, f"{len(others)} outputs, each a subject"
    )


def _artifact_check(directory: Path, output: Mapping[str, Any]) -> Check:
    name = f"artifact:{output['path']}"
    root = directory.resolve()
    try:
        file = (root / output["path"]).resolve()
        if not file.is_relative_to(root):
            return Check(name, "failed", f"the path leads out of {directory}")
        if not file.is_file():
            return Check(name, "skipped", f"no such file in {directory}")
        size = file.stat().st_size
        if str(size) != str(output["size_bytes"]):  # a text from 2^53 on
            return Check(name, "failed", f"{size} bytes, the receipt says {output['size_bytes']}")
        with file.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links is the last
        return Check(name, "skipped", f"it can't be read: {error}")
    return holds_or_failed(name, sha256 == output["sha256"], f"sha256 {sha256}")
