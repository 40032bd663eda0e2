"""Checking receipts offline: whether a key holder signed these very bytes, and whether files are what they say.

Needs `cryptography` and `rfc8785`: `pip install 'jobledger[verify]'`.
"""

import base64
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jobledger import dsse, receipt_format, strict_json, tlog

Status = Literal["ok", "failed", "skipped"]

CAVEATS = (
    "A receipt proves that the holder of the key signed these bytes; it does not prove that the server told the truth.",
    "It does not prove that nobody else had the key: without isolation, a job can read what the server's user can.",
)

VALID, INVALID, NOT_CHECKED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key of a keys file: its public half as PEM, and when it was revoked (RFC 3339), if it was."""

    public_key_pem: bytes
    revoked_at: str | None = None


@dataclass(frozen=True, slots=True)
class LogProof:
    """Proof that a receipt is in an installation's log: the text of the proof, and the log's key, `name+id+key`."""

    text: str
    key: str


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `name` is for programs, `detail` for people."""

    name: str
    status: Status
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationReport:
    """What became of each check, and the receipt, where it could be read: believe it only with `exit_code` 0."""

    checks: Sequence[Check]
    receipt: dict[str, Any] | None = None
    caveats: tuple[str, ...] = CAVEATS

    @property
    def exit_code(self) -> int:
        """0 valid, 1 invalid, 2 something could not be checked."""
        statuses = {check.status for check in self.checks}
        if "failed" in statuses:
            return INVALID
        return NOT_CHECKED if "skipped" in statuses else VALID


class KeysFileError(ValueError):
    """A keys file that can't be used; the message names it and says why."""


def key_id(public_key_pem: bytes) -> str:
    """SHA-256 of the public key's DER form, lower-case hex.

    Raises:
        ValueError: it is no PEM.
    """
    lines = public_key_pem.strip().splitlines()
    if len(lines) < 3 or lines[0] != b"-----BEGIN PUBLIC KEY-----" or lines[-1] != b"-----END PUBLIC KEY-----":
        raise ValueError("not a public key in PEM")
    return hashlib.sha256(base64.b64decode(b"".join(lines[1:-1]), validate=True)).hexdigest()


def load_keys(path: Path) -> Mapping[str, KeyEntry]:
    """Reads a keys file, as the server writes it and `GET /v1/receipts/keys` answers it: keys by their id.

    Raises:
        KeysFileError: it is no such file, or a key's id is not the hash of the key.
        OSError: it can't be read.
    """
    try:
        return _key_entries(strict_json.loads(path.read_bytes()))
    except ValueError as error:
        raise KeysFileError(f"{path} is not a file of signing keys: {error}") from error


def _key_entries(document: object) -> dict[str, KeyEntry]:
    match document:
        case {"keys": list(members)}:
            return dict(map(_key_entry, members))
        case _:
            raise ValueError("it has no list `keys`")


def _key_entry(member: object) -> tuple[str, KeyEntry]:
    match member:
        case {"key_id": str(named), "algorithm": "ed25519", "public_key_pem": str(pem), **rest}:
            if key_id(pem.encode()) != named:
                raise ValueError(f"the id {named} is not the hash of its key")
            revoked_at = rest.get("revoked_at")
            return named, KeyEntry(pem.encode(), None if revoked_at is None else str(revoked_at))
        case _:
            raise ValueError("each key has key_id, algorithm `ed25519` and public_key_pem")


def verify(
    envelope: bytes,
    *,
    keys: Mapping[str, bytes | KeyEntry] | None,
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
        log_proof: proof that the receipt is in the installation's log.

    Raises:
        ValueError: one of `keys` is no public key in PEM.
    """
    lacking = [name for name in ("cryptography", "rfc8785") if importlib.util.find_spec(name) is None]
    if lacking:
        detail = f"{' and '.join(lacking)} not installed: pip install 'jobledger[verify]'"
        return VerificationReport(checks=[Check("libraries", "skipped", detail)])
    try:
        opened = dsse.decode(envelope)
    except ValueError as error:
        return _not_an_envelope(envelope, error)
    checks = [
        Check("envelope", "ok", "DSSE envelope"),
        _check("payload_type", opened.payload_type == receipt_format.PAYLOAD_TYPE, opened.payload_type),
        *_signature_checks(opened, keys),
    ]
    if log_proof:
        checks.append(_log_check(log_proof, opened.payload))
    try:
        statement = strict_json.loads(opened.payload)
    except ValueError as error:
        return VerificationReport(checks=[*checks, Check("payload", "failed", f"not strict JSON: {error}")])
    checks.append(_canonical_check(statement, opened.payload))
    receipt = _receipt_in(statement)
    if receipt is None:
        detail = "not an in-toto Statement v1 around a receipt of version 1"
        return VerificationReport(checks=[*checks, Check("statement", "failed", detail)])
    checks += _content_checks(statement, receipt)
    if job_id is not None:
        checks.append(_check("job_id", receipt["job_id"] == job_id, f"receipt of {receipt['job_id']}"))
    if artifacts is not None:
        checks += [_artifact_check(artifacts, output) for output in receipt["outputs"]]
    return VerificationReport(checks=checks, receipt=receipt)


def _check(name: str, holds: bool, detail: str) -> Check:
    return Check(name, "ok" if holds else "failed", detail)


def _not_an_envelope(data: bytes, error: ValueError) -> VerificationReport:
    try:
        document = strict_json.loads(data)
    except ValueError:
        document = None
    if isinstance(document, dict) and "receipt_version" in document:
        detail = "this is a receipt without its envelope, so nothing is signed: fetch it with format `dsse`"
        return VerificationReport(checks=[Check("envelope", "skipped", detail)], receipt=document)
    return VerificationReport(checks=[Check("envelope", "failed", f"not a DSSE envelope: {error}")])


def _signature_checks(opened: dsse.Envelope, keys: Mapping[str, bytes | KeyEntry] | None) -> Iterator[Check]:
    if keys is None:
        yield Check("signature", "skipped", "no keys given: nothing says who signed this")
        return
    known = [(it, _entry(keys[it.key_id])) for it in opened.signatures if it.key_id in keys]
    if not known:
        named = ", ".join(it.key_id or "(unnamed)" for it in opened.signatures)
        yield Check("key_known", "failed", f"signed by a foreign key: {named}")
        return
    yield Check("key_known", "ok", ", ".join(signature.key_id for signature, _ in known))
    trusted = [(signature, entry) for signature, entry in known if entry.revoked_at is None]
    if not trusted:
        yield Check("key_not_revoked", "failed", f"the key was revoked at {known[0][1].revoked_at}")
        return
    yield Check("key_not_revoked", "ok", "not revoked")
    signed = dsse.pae(opened.payload_type, opened.payload)
    holds = any(_signature_holds(entry.public_key_pem, signature.value, signed) for signature, entry in trusted)
    yield _check("signature", holds, "Ed25519 over type and payload" if holds else "it is not of these bytes")


def _entry(key: bytes | KeyEntry) -> KeyEntry:
    return key if isinstance(key, KeyEntry) else KeyEntry(key)


def _signature_holds(public_key_pem: bytes, signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(public_key_pem)
    if not isinstance(key, Ed25519PublicKey):
        return False
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _log_check(proof: LogProof, payload: bytes) -> Check:
    try:
        parsed = tlog.InclusionProof.parse(proof.text)
        checkpoint = parsed.check(hashlib.sha256(payload).digest(), tlog.NoteKey.parse(proof.key))
    except tlog.LogProofError as error:
        return Check("log_inclusion", "failed", str(error))
    return Check("log_inclusion", "ok", f"leaf {parsed.index} of {checkpoint.size} in {checkpoint.origin}")


def _canonical_check(document: object, payload: bytes) -> Check:
    try:
        same = receipt_format.canonical(document) == payload
    except ValueError as error:
        return Check("payload_canonical", "failed", str(error))
    return _check("payload_canonical", same, "RFC 8785 form" if same else "it was written anew since it was signed")


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
        } if all(map(_is_output, outputs)):
            return dict(receipt)
        case _:
            return None


def _is_output(member: object) -> bool:
    match member:
        case {"path": str(), "size_bytes": int(), "sha256": str()}:
            return True
        case _:
            return False


def _content_checks(statement: Any, receipt: dict[str, Any]) -> Iterator[Check]:
    predicate_type = statement["predicateType"]
    yield Check("statement", "ok", "in-toto Statement v1")
    yield _check("predicate_type", predicate_type == receipt_format.PREDICATE_TYPE, predicate_type)
    try:
        computed = receipt_format.receipt_hash(receipt)
    except ValueError as error:
        yield Check("receipt_hash", "failed", str(error))
    else:
        stated = receipt["receipt_hash"]
        yield _check("receipt_hash", computed == stated, stated if computed == stated else f"it is {computed}")
    first, *others = receipt_format.subjects(receipt)
    yield _check("receipt_subject", statement["subject"][:1] == [first], "the first subject is the receipt's hash")
    yield _check("output_subjects", statement["subject"][1:] == others, f"{len(others)} outputs, each a subject")


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
        if size != output["size_bytes"]:
            return Check(name, "failed", f"{size} bytes, the receipt says {output['size_bytes']}")
        with file.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        return Check(name, "skipped", f"it can't be read: {error}")
    return _check(name, sha256 == output["sha256"], f"sha256 {sha256}")
