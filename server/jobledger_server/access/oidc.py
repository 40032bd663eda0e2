"""Tokens that an OpenID Connect issuer gave (JWTs): whether they are good, and what their holders may do."""

import hashlib
import json
import logging
import math
import re
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import jwt
from jwt.types import Options

from jobledger_server.access.issuer_keys import IssuerKeys, KeysUnavailableError
from jobledger_server.access.oidc_settings import OidcSettings
from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import Clock
from jobledger_server.core.times import LATEST, SECOND

log = logging.getLogger(__name__)
JWT = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
MOST_BYTES = 8 * 1024
MOST_KNOWN = 1024
MOST_SUBJECT = 255
LEEWAY = 60 * SECOND
KNOWN_FOR = 60 * SECOND
LOG_STEP_SECONDS = 60.0
# What a token may say that it is (RFC 8725, 3.11): an access token or an ID token, not one for a logout, say.
KINDS = frozenset({"jwt", "at+jwt", "application/at+jwt", "application/jwt"})
# Times are compared here, with the server's own clock.
OPTIONS: Options = {
    "verify_signature": True,
    "enforce_minimum_key_length": True,
    "require": ["iss", "sub", "aud", "exp"],
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}
# The claims that are lists of words by their definition (RFC 8693, 4.2); others may have spaces in a value.
WORDS = frozenset({"scope", "scp"})
WHY = {
    jwt.InvalidSignatureError: "its signature is not the issuer's",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is of another issuer",
    jwt.MissingRequiredClaimError: "it lacks one of the claims iss, sub, aud, exp",
}


class RefusedError(Exception):
    """A token that is not taken; the message is for the server's log, and has nothing of the token."""


class Known(NamedTuple):
    """Whose token it is, and until when that needs no new look, in microseconds since the epoch."""

    principal: Principal
    until: int


class JwtAuthenticator:
    """Tells whose JWT it is. One that was found good is known for a minute, by its SHA-256."""

    def __init__(self, *, settings: OidcSettings, keys: IssuerKeys, clock: Clock, throttle: FailureThrottle) -> None:
        self._settings = settings
        self._scopes = {value: frozenset(scopes) for value, scopes in settings.scope_map}
        self._keys = keys
        self._clock = clock
        self._throttle = throttle
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._version = keys.version
        self._logged: dict[str, float] = {}

    async def authenticate(self, token: bytes, peer: str) -> Principal:
        """The principal of a token of the form `JWT`.

        Raises:
            ServiceError: AUTH_MALFORMED, AUTH_INVALID, AUTH_TOKEN_EXPIRED or AUTH_RATE_LIMITED; ENGINE_STARTING where
                the issuer's keys can't be had.
        """
        if len(token) > MOST_BYTES:
            told = (
                f"The token has {len(token)} bytes, and may have {MOST_BYTES}: ask its issuer for one with less in it"
            )
            raise ServiceError(Reason.ERROR_REASON_AUTH_MALFORMED, told)
        digest = hashlib.sha256(token).digest()
        known = self._recall(digest)
        if known is not None:
            return known
        try:
            principal = await self._verify(token)
        except RefusedError as refusal:
            self._log(str(refusal))
            self._throttle.failed(peer)
            raise ServiceError(Reason.ERROR_REASON_AUTH_INVALID) from None
        except KeysUnavailableError:
            told = "The keys of the token's issuer can't be had just now: try again shortly"
            raise ServiceError(Reason.ERROR_REASON_ENGINE_STARTING, told, retry_after=5) from None
        if self._clock.now() >= principal.expires_at:
            raise ServiceError(
                Reason.ERROR_REASON_AUTH_TOKEN_EXPIRED, token_id=principal.token_id, subject=principal.subject
            )
        self._remember(digest, principal)
        return principal

    def _recall(self, digest: bytes) -> Principal | None:
        if self._version != self._keys.version:
            # A key may have been withdrawn.
            self._known.clear()
            self._version = self._keys.version
        known = self._known.get(digest)
        if known is None or self._clock.now() >= known.until:
            return None
        self._known.move_to_end(digest)
        return known.principal

    def _remember(self, digest: bytes, principal: Principal) -> None:
        self._known[digest] = Known(principal, min(principal.expires_at, self._clock.now() + KNOWN_FOR))
        self._known.move_to_end(digest)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    async def _verify(self, token: bytes) -> Principal:
        header = _header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        # The operator's list decides, never the token; where it says that a key is (jku, x5u, jwk) nobody looks.
        if not isinstance(algorithm, str) or algorithm not in self._settings.algorithms:
            raise RefusedError("its algorithm is not among those that the settings allow")
        if "crit" in header or "b64" in header:
            raise RefusedError("its header has extensions that must be understood")
        if str(header.get("typ", "JWT")).lower() not in KINDS:
            raise RefusedError("it says that it is a token for something else")
        if not isinstance(kid, str | None):
            raise RefusedError("the id of its key is no text")
        key = await self._keys.find(kid, algorithm)
        if key is None:
            raise RefusedError("the issuer has no such key for this algorithm")
        return self._principal(self._claims(token, key, algorithm))

    def _claims(self, token: bytes, key: jwt.PyJWK, algorithm: str) -> Mapping[str, Any]:
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=self._settings.issuer,
                audience=self._settings.audiences,
                options=OPTIONS,
            )
        except jwt.PyJWTError as error:
            raise RefusedError(WHY.get(type(error), "it can't be read")) from None
        self._check(claims)
        return claims

    def _check(self, claims: Mapping[str, Any]) -> None:
        subject, now = claims["sub"], self._clock.now()
        if not subject or len(subject) > MOST_SUBJECT or not subject.isprintable():
            raise RefusedError(f"its subject is empty, longer than {MOST_SUBJECT} characters, or can't be printed")
        if "cnf" in claims:
            raise RefusedError("it is bound to a key that its sender must prove to have, which is not supported")
        for name in ("nbf", "iat"):
            if name in claims and _instant(claims, name) > now + LEEWAY:
                raise RefusedError(f"it is not valid yet ({name}); the clocks may differ")
        longest = self._settings.max_lifetime_seconds * SECOND
        if longest and _instant(claims, "exp") - _instant(claims, "iat") > longest:
            raise RefusedError("it is valid for longer than max_lifetime_seconds")

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        issuer, subject, settings = self._settings.issuer, claims["sub"], self._settings
        scopes = [self._scopes.get(value, frozenset()) for value in _values(claims, settings.scope_claim)]
        workspaces = frozenset(_values(claims, settings.workspace_claim)) if settings.workspace_claim else None
        if workspaces == frozenset():
            scopes = []
        return Principal(
            token_id="oidc:" + hashlib.sha256(f"{issuer}\0{subject}".encode()).hexdigest()[:32],
            subject=f"oidc:{issuer}#{subject}",
            scopes=frozenset[str]().union(*scopes),
            workspaces=workspaces,
            expires_at=min(_instant(claims, "exp") + LEEWAY, LATEST * SECOND),
        )

    def _log(self, why: str) -> None:
        """Says why, once a minute for each reason: strangers can send as many as they like."""
        now = self._clock.monotonic()
        if now - self._logged.get(why, -math.inf) >= LOG_STEP_SECONDS:
            self._logged[why] = now
            log.warning("a JWT was refused: %s", why)


def _header(token: bytes) -> Mapping[str, Any]:
    part = token.partition(b".")[0]
    try:
        header = json.loads(urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        raise RefusedError("its header can't be read") from None
    if not isinstance(header, Mapping):
        raise RefusedError("its header can't be read")
    return header


def _instant(claims: Mapping[str, Any], name: str) -> int:
    """A time of the token's, in microseconds since the epoch."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
        raise RefusedError(f"its time {name} is not a number of seconds")
    return round(value * SECOND)


def _values(claims: Mapping[str, Any], name: str) -> list[str]:
    """The values of a claim: a text, words in a text where the claim is of that kind, or a list of texts."""
    value: Any = claims.get(name)
    if name not in claims:
        value = claims
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return value.split() if name in WORDS else [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
