"""The keys that an issuer publishes (RFC 7517): which of them check which signatures."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

log = logging.getLogger(__name__)
MOST_KEYS = 100
# Beyond that one signature takes milliseconds to check.
RSA_BITS = range(2048, 8193)
# By algorithm: the only kind of key, and its curve, that may check it.
KINDS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
# Of a key's members those that are public: a private key published by mistake is not taken in.
PUBLIC = ("kty", "crv", "n", "e", "x", "y")


class KeySetError(Exception):
    """What an issuer publishes is no set of keys that can be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Keys:
    """An issuer's keys by their id and the algorithm that they are for."""

    by_id: Mapping[tuple[str | None, str], jwt.PyJWK]

    def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key with this id. A token that names none means the only one for its algorithm."""
        if kid is not None:
            return self.by_id.get((kid, algorithm))
        fitting = [key for (_, of), key in self.by_id.items() if of == algorithm]
        return fitting[0] if len(fitting) == 1 else None


def keys_of(document: Any, algorithms: Iterable[str]) -> Keys:
    """The keys of a JWKS that check signatures by one of the algorithms; others are left out.

    Raises:
        KeySetError: it is no JWKS, has too many keys, or none that can be used.
    """
    listed = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(listed, list):
        raise KeySetError("is not a JSON object with a list of keys")
    if len(listed) > MOST_KEYS:
        raise KeySetError(f"has more than {MOST_KEYS} keys")
    by_id: dict[tuple[str | None, str], jwt.PyJWK] = {}
    allowed = tuple(algorithms)
    for member in listed:
        for algorithm in allowed:
            key = _key(member, algorithm)
            if key is not None:
                by_id.setdefault((member.get("kid"), algorithm), key)
    if not by_id:
        raise KeySetError(f"has no key that checks signatures by {', '.join(allowed)}")
    return Keys(by_id)


def _key(member: Any, algorithm: str) -> jwt.PyJWK | None:
    if not isinstance(member, Mapping) or not _is_for(member, algorithm):
        return None
    try:
        key = jwt.PyJWK({name: member[name] for name in PUBLIC if name in member}, algorithm)
    except Exception as error:  # noqa: BLE001 - one bad key, in whatever way, must not cost the others
        log.warning("a key of the issuer can't be read, and is left out: %s", type(error).__name__)
        return None
    if member["kty"] == "RSA" and key.key.key_size not in RSA_BITS:
        log.warning("an RSA key of the issuer has %s bits, and is left out", key.key.key_size)
        return None
    return key


def _is_for(member: Mapping[str, Any], algorithm: str) -> bool:
    kty, crv = KINDS[algorithm]
    operations = member.get("key_ops", ["verify"])
    return (
        member.get("kty") == kty
        and (crv is None or member.get("crv") == crv)
        and member.get("use", "sig") == "sig"
        and member.get("alg", algorithm) == algorithm
        and isinstance(operations, list)
        and "verify" in operations
        and isinstance(member.get("kid"), str | None)
    )
