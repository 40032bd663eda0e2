"""Signatures of Ed25519 keys. Needs `cryptography` (extra `verify`)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# Of the DER form of a public key; 32 bytes follow.
DER_PREFIX = bytes.fromhex("302a300506032b6570032100")


def load(public_key_pem: bytes) -> "Ed25519PublicKey | None":
    """The public key in a PEM; None where it is of another kind.

    Raises:
        ValueError: it is no public key in PEM.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(public_key_pem)
    return key if isinstance(key, Ed25519PublicKey) else None


def signed_by(key: "Ed25519PublicKey | None", signature: bytes, data: bytes) -> bool:
    """Whether the signature is of these bytes and this key."""
    from cryptography.exceptions import InvalidSignature

    if key is None:
        return False
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True
