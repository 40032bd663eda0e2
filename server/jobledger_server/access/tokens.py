"""Tokens: how they look, and whose they are.

A token is `jl_<id>_<secret>` with 256 random bits in the secret; the store has its SHA-256 alone. (So much randomness
needs no slow hash.)
"""

import base64
import hashlib
import hmac
import logging
import re
from collections.abc import Sequence

from jobledger_server.access.oidc import JWT, JwtAuthenticator
from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import Clock, StoreUnavailableError, TokenRecord, TokenStore
from jobledger_server.core.times import SECOND

log = logging.getLogger(__name__)
TOKEN = re.compile(rb"jl_([A-Za-z0-9]{1,64})_([A-Za-z0-9_-]{1,128})")
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
LAST_USED_STEP = 60 * SECOND
MOST_PRINCIPALS = 1024


def issue(clock: Clock) -> tuple[str, str]:
    """A new token: (id, token)."""
    token_id = "".join(ALPHABET[byte & 31] for byte in clock.random(8))
    secret = base64.urlsafe_b64encode(clock.random(32)).rstrip(b"=").decode()
    return token_id, f"jl_{token_id}_{secret}"


def digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


class Authenticator:
    """Tells whose token it is.

    Wrong tokens are throttled by peer; a valid one is never refused for that. `jwts` takes those of an issuer, if any.
    """

    def __init__(
        self, *, tokens: TokenStore, clock: Clock, throttle: FailureThrottle, jwts: JwtAuthenticator | None = None
    ) -> None:
        self._tokens = tokens
        self._clock = clock
        self._throttle = throttle
        self._jwts = jwts
        self._principals: dict[str, tuple[TokenRecord, Principal]] = {}

    async def authenticate(self, credentials: Sequence[str | bytes], peer: str) -> Principal:
        """The principal behind the values of the header `authorization`.

        Raises:
            ServiceError: AUTH_MISSING, AUTH_MALFORMED, AUTH_INVALID, AUTH_TOKEN_EXPIRED or AUTH_RATE_LIMITED;
                ENGINE_STARTING where an issuer's keys can't be had.
        """
        token = parse_credentials(credentials)
        match = TOKEN.fullmatch(token)
        if match is None:
            if self._jwts is not None and JWT.fullmatch(token):
                return await self._jwts.authenticate(token, peer)
            raise ServiceError(Reason.ERROR_REASON_AUTH_MALFORMED)
        record = await self._tokens.token(match[1].decode())
        known = record is not None and hmac.compare_digest(record.digest, digest(token))
        now = self._clock.now()
        if record is None or not known or (record.revoked_at and record.revoked_at <= now):
            self._throttle.failed(peer)
            # Who shows a wrong secret is nobody, whatever id stands before it.
            proven = record.token_id if record is not None and known else ""
            raise ServiceError(Reason.ERROR_REASON_AUTH_INVALID, token_id=proven)
        if record.expires_at and record.expires_at <= now:
            raise ServiceError(Reason.ERROR_REASON_AUTH_TOKEN_EXPIRED, token_id=record.token_id)
        if now - record.last_used_at >= LAST_USED_STEP:
            await self._note_use(record, now)
        return self._principal_of(record)

    def _principal_of(self, record: TokenRecord) -> Principal:
        """The very same for a record that is the same: most calls show a token that was just shown."""
        known = self._principals.get(record.token_id)
        if known is not None and known[0] is record:
            return known[1]
        if len(self._principals) >= MOST_PRINCIPALS:
            self._principals.clear()
        principal = principal_of(record)
        self._principals[record.token_id] = (record, principal)
        return principal

    async def _note_use(self, record: TokenRecord, now: int) -> None:
        try:
            await self._tokens.note_token_use(record.token_id, now)
        except StoreUnavailableError as error:
            # A full disk must not keep anybody from reading.
            log.warning("the use of token %s can't be noted just now: %s", record.token_id, error)


def principal_of(record: TokenRecord) -> Principal:
    """What a token lets its holder do."""
    return Principal(
        token_id=record.token_id,
        scopes=frozenset(record.scopes),
        workspaces=frozenset(record.workspaces) if record.workspaces else None,
        expires_at=record.expires_at,
        first_id=record.first_id,
    )


def parse_credentials(values: Sequence[str | bytes]) -> bytes:
    """The one bearer token in the values of `authorization`; the scheme's case does not matter (RFC 9110)."""
    if not values:
        raise ServiceError(Reason.ERROR_REASON_AUTH_MISSING)
    value = values[0]
    raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    scheme, _, token = raw.partition(b" ")
    if len(values) > 1 or scheme.lower() != b"bearer" or not token:
        raise ServiceError(Reason.ERROR_REASON_AUTH_MALFORMED)
    return token
