"""Slows down those who guess tokens."""

from collections import OrderedDict, deque

from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.ports import Clock


class FailureThrottle:
    """Counts wrong tokens by peer: after `limit` in `window` seconds, further ones are told to wait.

    Only failures are counted and refused, so that nobody can lock out the holder of a valid token. The peers that are
    remembered are bounded; the longest silent one goes first.
    """

    def __init__(self, *, clock: Clock, limit: int = 10, window: float = 60.0, peers: int = 10_000) -> None:
        self._clock = clock
        self._limit = limit
        self._window = window
        self._peers = peers
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def failed(self, peer: str) -> None:
        """Notes a wrong token.

        Raises:
            ServiceError: AUTH_RATE_LIMITED, where the peer has had its share.
        """
        now = self._clock.monotonic()
        failures = self._failures.setdefault(peer, deque(maxlen=self._limit))
        self._failures.move_to_end(peer)
        if len(self._failures) > self._peers:
            self._failures.popitem(last=False)
        while failures and now - failures[0] >= self._window:
            failures.popleft()
        if len(failures) == self._limit:
            raise ServiceError(
                Reason.ERROR_REASON_AUTH_RATE_LIMITED, retry_after=max(1.0, failures[0] + self._window - now)
            )
        failures.append(now)
