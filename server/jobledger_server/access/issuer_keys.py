"""An issuer's keys, fetched from where the operator said and nowhere else, and kept fresh in the background."""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import jwt

from jobledger_server.access.jwks import Keys, KeySetError, keys_of
from jobledger_server.access.oidc_settings import OidcSettings, origin_of
from jobledger_server.core.ports import Clock

log = logging.getLogger(__name__)
DISCOVERY = "/.well-known/openid-configuration"
MOST_WAITING = 64


class FetchError(Exception):
    """Something can't be fetched; the message says what and why, for the server's log."""


class KeysUnavailableError(Exception):
    """There are no keys of the issuer, or none young enough to be trusted."""


# Gives the body at a URL, bounded in size and time, and follows nowhere. Raises FetchError.
Fetch = Callable[[str], Awaitable[bytes]]


class IssuerKeys:
    """The keys of one issuer. `run` must be under way for as long as it is asked.

    Attributes:
        version: raised with each set of keys, so that what was found out by older ones can be forgotten.
    """

    def __init__(
        self,
        *,
        settings: OidcSettings,
        fetch: Fetch,
        clock: Clock,
        interval: float = 600.0,
        first_retry: float = 1.0,
        last_retry: float = 60.0,
        cooldown: float = 30.0,
        patience: float = 5.0,
        most_age: float = 24 * 3600.0,
    ) -> None:
        """Takes seconds: `interval` between good rounds; `first_retry`, doubled up to `last_retry`, after failed ones;
        `cooldown` before an unknown key makes another round; `patience` that a call has with one; `most_age` of keys.
        """
        self._settings = settings
        self._fetch = fetch
        self._clock = clock
        self._interval = interval
        self._first_retry = first_retry
        self._last_retry = last_retry
        self._cooldown = cooldown
        self._patience = patience
        self._most_age = most_age
        self._keys: Keys | None = None
        self._loaded_at = self._began_at = -math.inf
        self._under_way = False
        self._waiting = 0
        self._asked = asyncio.Event()
        self._over = asyncio.Event()
        self.version = 0

    async def run(self) -> None:
        """Fetches the keys, again and again, until it is cancelled."""
        retry = self._first_retry
        while True:
            good = await self._round()
            pause = self._interval if good else retry
            retry = self._first_retry if good else min(2 * retry, self._last_retry)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._asked.wait()

    async def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key for a token, None where the issuer has no such key.

        For an unknown one the issuer is asked again, yet not more often than once in `cooldown` seconds: strangers
        make up ids as they like.

        Raises:
            KeysUnavailableError: the issuer was not reached, or not for too long.
        """
        if self._find(kid, algorithm) is None and self._waiting < MOST_WAITING and self._may_ask():
            await self._next_round()
        if not self._is_usable():
            raise KeysUnavailableError
        return self._find(kid, algorithm)

    def _find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        return None if self._keys is None or not self._is_usable() else self._keys.find(kid, algorithm)

    def _is_usable(self) -> bool:
        return self._clock.monotonic() - self._loaded_at <= self._most_age

    def _may_ask(self) -> bool:
        return self._under_way or self._clock.monotonic() - self._began_at >= self._cooldown

    async def _next_round(self) -> None:
        if not self._under_way:
            self._asked.set()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._over.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1

    async def _round(self) -> bool:
        """Fetches the keys once. False: it did not succeed, and the last ones stay."""
        self._asked.clear()
        self._began_at = self._clock.monotonic()
        self._under_way = True
        try:
            keys = await self._load()
        except FetchError as error:
            log.warning("the keys of %s can't be had: %s", self._settings.issuer, error)
            return False
        finally:
            self._under_way = False
            over, self._over = self._over, asyncio.Event()
            over.set()
        if self._keys is None or keys.by_id.keys() != self._keys.by_id.keys():
            log.info("%s has %s keys", self._settings.issuer, len(keys.by_id))
        self._keys, self._loaded_at = keys, self._clock.monotonic()
        self.version += 1
        return True

    async def _load(self) -> Keys:
        url = self._settings.jwks_uri or await self._discover()
        document = _parsed(url, await self._fetch(url))
        try:
            return keys_of(document, self._settings.algorithms)
        except KeySetError as error:
            raise FetchError(f"{url} {error}") from None

    async def _discover(self) -> str:
        """Where the issuer says that its keys are; believed on its own origin alone."""
        issuer = self._settings.issuer
        url = issuer.rstrip("/") + DISCOVERY
        document = _parsed(url, await self._fetch(url))
        if not isinstance(document, Mapping) or document.get("issuer") != issuer:
            raise FetchError(f"{url} is not that of the issuer {issuer}: `issuer` there must be the very same text")
        keys_url = document.get("jwks_uri")
        try:
            same = isinstance(keys_url, str) and origin_of(keys_url) == origin_of(issuer)
        except ValueError:
            same = False
        if not same:
            told = str(keys_url)[:200]
            raise FetchError(f"{url} has its keys at another origin, {told!r}: if that is right, set oidc.jwks_uri")
        return str(keys_url)


def _parsed(url: str, body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise FetchError(f"{url} is not JSON") from None
