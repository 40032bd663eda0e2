"""The public keys that a verifier trusts, as `keys.json` has them, and what they vouch for."""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jobledger import dsse, ed25519, strict_json
from jobledger.checks import Check, holds_or_failed

Keys = Mapping[str, "bytes | KeyEntry"]


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key of a keys file: its public half as PEM, and times in RFC 3339, each None where there is none.

    Attributes:
        revoked_at: since when nothing that it ever signed is to be believed.
        valid_from: when it was made.
        valid_until: until when it signed; another signs since.
    """

    public_key_pem: bytes
    revoked_at: str | None = None
    valid_from: str | None = None
    valid_until: str | None = None


class KeysFileError(ValueError):
    """A keys file that can't be used; the message names it and says why."""


def key_id(public_key_pem: bytes) -> str:
    """SHA-256 of the public key's DER form, lower-case hex.

    Raises:
        ValueError: it is no PEM.
    """
    return hashlib.sha256(_der(public_key_pem)).hexdigest()


def _der(public_key_pem: bytes) -> bytes:
    lines = public_key_pem.strip().splitlines()
    if len(lines) < 3 or lines[0] != b"-----BEGIN PUBLIC KEY-----" or lines[-1] != b"-----END PUBLIC KEY-----":
        raise ValueError("not a public key in PEM")
    return base64.b64decode(b"".join(lines[1:-1]), validate=True)


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


def load_log_key(path: Path) -> str | None:
    """The key of the log in a keys file, `name+id+key`; None where it has none.

    Raises:
        KeysFileError: it is no such file.
        OSError: it can't be read.
    """
    try:
        document = strict_json.loads(path.read_bytes())
    except ValueError as error:
        raise KeysFileError(f"{path} is not a file of signing keys: {error}") from error
    match document:
        case {"log_key": str(key)} if key:
            return key
        case _:
            return None


def _key_entries(document: object) -> dict[str, KeyEntry]:
    match document:
        case {"keys": list(members)}:
            entries = [_key_entry(member) for member in members]
        case _:
            raise ValueError("it has no list `keys`")
    if len(dict(entries)) != len(entries):
        raise ValueError("it has a key twice")
    return dict(entries)


def _key_entry(member: object) -> tuple[str, KeyEntry]:
    match member:
        case {"key_id": str(named), "algorithm": "ed25519", "public_key_pem": str(pem), **rest}:
            der = _der(pem.encode())
            if hashlib.sha256(der).hexdigest() != named:
                raise ValueError(f"the id {named} is not the hash of its key")
            if len(der) != 44 or not der.startswith(ed25519.DER_PREFIX):
                raise ValueError(f"the key {named} is not Ed25519")
            times = {name: _time(rest, name) for name in ("revoked_at", "valid_from", "valid_until")}
            return named, KeyEntry(pem.encode(), **times)
        case _:
            raise ValueError("each key has key_id, algorithm `ed25519` and public_key_pem")


def _time(members: Mapping[object, object], name: str) -> str | None:
    value = members.get(name)
    if value is None:
        return None
    try:
        _instant(str(value))
    except ValueError:
        raise ValueError(f"{name} is a time as in RFC 3339") from None
    return str(value)


def signature_checks(opened: dsse.Envelope, keys: Keys | None) -> tuple[Sequence[Check], KeyEntry | None]:
    """Whether a trusted key signed the envelope, and which."""
    if keys is None:
        return [Check("signature", "skipped", "no keys given: nothing says who signed this")], None
    known = [(it, _entry(keys[it.key_id])) for it in opened.signatures if it.key_id in keys]
    if not known:
        named = ", ".join(it.key_id or "(unnamed)" for it in opened.signatures)
        return [Check("key_known", "failed", f"signed by a foreign key: {named}")], None
    checks = [Check("key_known", "ok", ", ".join(signature.key_id for signature, _ in known))]
    trusted = [(signature, entry) for signature, entry in known if entry.revoked_at is None]
    if not trusted:
        return [*checks, Check("key_not_revoked", "failed", f"the key was revoked at {known[0][1].revoked_at}")], None
    checks.append(Check("key_not_revoked", "ok", "not revoked"))
    signed = dsse.pae(opened.payload_type, opened.payload)
    signed_by = [(it.value, entry, ed25519.load(entry.public_key_pem)) for it, entry in trusted]
    signers = [entry for signature, entry, key in signed_by if ed25519.signed_by(key, signature, signed)]
    detail = "Ed25519 over type and payload" if signers else "it is not of these bytes"
    return [*checks, holds_or_failed("signature", bool(signers), detail)], signers[0] if signers else None


def validity_checks(signer: KeyEntry, receipt: Mapping[str, object]) -> Iterator[Check]:
    """Whether the key signed at the time at which the job ended, where the keys file tells of times.

    A job that ended before its key was made is no contradiction: where no server ran at its end, the next one signs.
    One that ended after its key had been replaced is: the server has that key no more.
    """
    if signer.valid_from is None and signer.valid_until is None:
        return
    name, ended = "key_valid_then", _completed(receipt)
    if ended is None:
        yield Check(name, "failed", "the receipt does not tell when the job ended")
    elif signer.valid_until is not None and _instant(ended) > _instant(signer.valid_until):
        yield Check(name, "failed", f"the job ended at {ended}, and the key was replaced at {signer.valid_until}")
    elif signer.valid_from is not None and _instant(ended) < _instant(signer.valid_from):
        yield Check(
            name, "ok", f"the job had ended at {ended}; the key was made at {signer.valid_from} and signed later"
        )
    else:
        yield Check(name, "ok", f"the key signed at {ended}")


def _completed(receipt: Mapping[str, object]) -> str | None:
    match receipt:
        case {"timestamps": {"completed": str(ended)}}:
            try:
                _instant(ended)
            except ValueError:
                return None
            return ended
        case _:
            return None


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError("no time zone")
    return instant


def _entry(key: bytes | KeyEntry) -> KeyEntry:
    return key if isinstance(key, KeyEntry) else KeyEntry(key)
