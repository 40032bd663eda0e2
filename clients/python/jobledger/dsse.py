"""DSSE envelopes (Dead Simple Signing Envelope 1.0): signed bytes with their type.

The envelope itself is malleable - its signatures may be added to, its base64 may be spelled otherwise -, so nothing may
depend on its bytes: identify a document by its payload.
"""

import base64
import json
from dataclasses import dataclass

from jobledger import strict_json

_URL_SAFE_TO_STANDARD = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature, and a hint at the key that made it: lower-case hex SHA-256 of the public key's DER form."""

    key_id: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload of some media type, and the signatures over `pae` of both."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """What is signed: the pre-authentication encoding of type and payload."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def encode(envelope: Envelope) -> bytes:
    """The envelope as JSON. The same envelope gives the same bytes."""
    document = {
        "payload": _base64(envelope.payload),
        "payloadType": envelope.payload_type,
        "signatures": [{"keyid": it.key_id, "sig": _base64(it.value)} for it in envelope.signatures],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def decode(data: bytes) -> Envelope:
    """Reads an envelope. Unknown members are ignored and both base64 alphabets taken, as DSSE demands.

    Raises:
        ValueError: it is not one; the message says where.
    """
    match strict_json.loads(data):
        case {"payload": str(payload), "payloadType": str(payload_type), "signatures": [_, *_] as signatures}:
            payload_type.encode()  # a lone surrogate is no text: it could not have been signed
            return Envelope(payload_type, _bytes("payload", payload), tuple(map(_signature, signatures)))
        case _:
            raise ValueError("an envelope has the members payload, payloadType and signatures, at least one")


def _signature(member: object) -> Signature:
    match member:
        case {"sig": str(value), "keyid": str(key_id)}:
            return Signature(key_id, _bytes("sig", value))
        case {"sig": str(value), **rest} if "keyid" not in rest:
            return Signature("", _bytes("sig", value))
        case _:
            raise ValueError("each signature has a member sig, and may have a keyid, both text")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text.translate(_URL_SAFE_TO_STANDARD), validate=True)
    except ValueError as error:
        raise ValueError(f"{name} is not base64: {error}") from None
