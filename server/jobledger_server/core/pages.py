"""Page tokens: where the next page begins, sealed so that a client can neither read nor change them.

AES-SIV, so that the same page has the same token. A token is bound to the filter and to the caller, and gives no access
of its own: each call is authorised anew.
"""

import base64
import hashlib
import json
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from jobledger_server.core.errors import invalid


class PageTokens:
    """Seals and opens page tokens.

    Args:
        secret: at least 16 secret bytes; tokens made with others are refused.
    """

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESSIV(hashlib.sha256(b"jobledger page tokens" + secret).digest())

    def seal(self, position: tuple[int, str], binding: Sequence[object]) -> str:
        """The token for the page after `position`, (created_at, job_id) of the last job before it."""
        sealed = self._cipher.encrypt(json.dumps(position).encode(), [_bytes(binding)])
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, token: str, binding: Sequence[object]) -> tuple[int, str]:
        """The position in a token.

        Raises:
            ServiceError: VALIDATION, for a token that is not ours, or of another filter or caller.
        """
        try:
            sealed = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
            created_at, job_id = json.loads(self._cipher.decrypt(sealed, [_bytes(binding)]))
        except (ValueError, InvalidTag):
            raise invalid("page_token", "not a token of this list and caller: start again without one") from None
        return created_at, job_id


def _bytes(binding: Sequence[object]) -> bytes:
    return json.dumps(list(binding), separators=(",", ":")).encode()
