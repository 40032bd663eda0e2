"""How fast one token may make requests."""

from collections import OrderedDict

from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.ports import Clock

MOST_TOKENS = 10_000


class RequestRates:
    """A token bucket for each token: `burst` requests at once, and `rate` a second in the long run.

    The buckets that are remembered are bounded; the one that was begun first goes first, and comes back full.
    """

    def __init__(self, *, clock: Clock, rate: int, burst: int) -> None:
        """`rate` of 0: any number."""
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, token_id: str) -> None:
        """Counts a request.

        Raises:
            ServiceError: RATE_LIMITED, where the token has had its share; it says when to come back.
        """
        if not self._rate:
            return
        now = self._clock.monotonic()
        left, at = self._buckets.get(token_id, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        if left < 1:
            raise ServiceError(
                Reason.ERROR_REASON_RATE_LIMITED,
                f"This token makes more than {self._rate} requests a second: slow down",
                retry_after=(1 - left) / self._rate,
            )
        self._buckets[token_id] = (left - 1, now)
        if len(self._buckets) > MOST_TOKENS:
            self._buckets.popitem(last=False)
