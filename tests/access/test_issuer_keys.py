"""The keys of an issuer: where they are fetched from, how often, and what holds while it is away or lies."""

import asyncio
import gzip
import json
import logging
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from jobledger_server.access.issuer_keys import MOST_WAITING, IssuerKeys, KeysUnavailableError
from jobledger_server.access.jwks import KeySetError, keys_of
from jobledger_server.access.oidc_settings import OidcSettings
from jobledger_server.outbound import MOST_BYTES, fetch
from jobledger_server.service.tasks import Tasks
from jwt.algorithms import RSAAlgorithm
from support.clock import ManualClock
from support.eventually import eventually
from support.issuer import AUDIENCE, DISCOVERY, JWKS, Answer, Issuer, issuing, private_key, public_jwk, saying

RULES = (("admins", ("admin",)),)
ROUND = [DISCOVERY, JWKS]


def keys_from(issuer: Issuer, clock: ManualClock, tasks: Tasks, *, jwks_uri: str = "", **times: float) -> IssuerKeys:
    settings = OidcSettings(issuer=issuer.url, audiences=(AUDIENCE,), scope_map=RULES, jwks_uri=jwks_uri)
    keys = IssuerKeys(settings=settings, fetch=partial(fetch, seconds=0.5), clock=clock, **times)
    tasks.start(keys.run(), "keys")
    return keys


async def test_the_first_call_waits_for_the_first_keys(issuer: Issuer, clock: ManualClock, tasks: Tasks) -> None:
    keys = keys_from(issuer, clock, tasks)
    found = await asyncio.gather(*(keys.find(name, name) for name in ("RS256", "ES256", "EdDSA")))
    assert None not in found
    assert issuer.asked == ROUND


async def test_a_new_key_is_found_and_an_old_one_is_gone(issuer: Issuer, clock: ManualClock, tasks: Tasks) -> None:
    keys = keys_from(issuer, clock, tasks)
    assert await keys.find("RS256", "RS256") is not None
    issuer.jwks = [public_jwk(private_key("RS256", 2), kid="new")]
    assert await keys.find("new", "RS256") is None, "just asked"
    clock.advance(30)
    assert await keys.find("new", "RS256") is not None
    assert await keys.find("RS256", "RS256") is None
    assert issuer.asked == 2 * ROUND


async def test_keys_that_strangers_make_up_do_not_make_the_server_ask_and_ask(
    issuer: Issuer, clock: ManualClock, tasks: Tasks
) -> None:
    keys = keys_from(issuer, clock, tasks)
    await keys.find("RS256", "RS256")
    for minute in range(1, 4):
        clock.advance(30)
        found = await asyncio.gather(*(keys.find(f"{minute}-{number}", "RS256") for number in range(300)))
        assert set(found) == {None}
        assert issuer.asked == (1 + minute) * ROUND


async def test_keys_are_fetched_again_by_and_by(issuer: Issuer, clock: ManualClock, tasks: Tasks) -> None:
    keys = keys_from(issuer, clock, tasks, interval=0.02)
    await keys.find("RS256", "RS256")
    issuer.jwks = [public_jwk(private_key("RS256", 2), kid="new")]
    assert await eventually(lambda: keys.find("new", "RS256")) is not None


async def test_calls_do_not_wait_for_an_issuer_that_hangs(issuer: Issuer, clock: ManualClock, tasks: Tasks) -> None:
    release = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    issuer.answers[DISCOVERY] = hang
    keys = keys_from(issuer, clock, tasks, patience=0.1)
    started = asyncio.get_running_loop().time()
    calls = [keys.find("x", "RS256") for _ in range(MOST_WAITING + 100)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(end) for end in ends} == {KeysUnavailableError}
    assert asyncio.get_running_loop().time() - started < 2
    assert issuer.asked == [DISCOVERY]
    release.set()


async def test_an_issuer_that_is_down_at_the_start_is_asked_until_it_is_there(clock: ManualClock, tasks: Tasks) -> None:
    async with issuing() as gone:
        port = int(gone.origin.rpartition(":")[2])
    keys = keys_from(gone, clock, tasks, first_retry=0.01, last_retry=0.05)
    with pytest.raises(KeysUnavailableError):
        await keys.find("RS256", "RS256")

    async def found() -> Any:
        try:
            return await keys.find("RS256", "RS256")
        except KeysUnavailableError:
            return None

    async with issuing(port):
        assert await eventually(found) is not None


async def test_the_last_keys_hold_while_the_issuer_is_away_for_a_day(
    issuer: Issuer, clock: ManualClock, tasks: Tasks
) -> None:
    keys = keys_from(issuer, clock, tasks)
    await keys.find("RS256", "RS256")
    issuer.answers[JWKS] = saying({}, status=503)
    clock.advance(24 * 3600)
    assert await keys.find("x", "RS256") is None
    assert await keys.find("RS256", "RS256") is not None
    clock.advance(1)
    with pytest.raises(KeysUnavailableError):
        await keys.find("RS256", "RS256")
    del issuer.answers[JWKS]
    clock.advance(30)
    assert await keys.find("RS256", "RS256") is not None


async def test_keys_elsewhere_are_taken_where_the_operator_says_so(
    issuer: Issuer, stranger: Issuer, clock: ManualClock, tasks: Tasks
) -> None:
    keys = keys_from(issuer, clock, tasks, jwks_uri=stranger.origin + JWKS)
    assert await keys.find("RS256", "RS256") is not None
    assert (issuer.asked, stranger.asked) == ([], [JWKS])
    stranger.asked.clear()


class Endless:
    """Bytes for as long as somebody takes them, or for `most`."""

    def __init__(self, most: float = float("inf"), chunk: bytes = b"x" * 65536) -> None:
        self.most, self.chunk, self.sent = most, chunk, 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while self.sent < self.most:
            await response.write(self.chunk)
            self.sent += len(self.chunk)
            await asyncio.sleep(0)
        return response


async def dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"{")
    await asyncio.Event().wait()
    return response


async def zipped(request: web.Request) -> web.StreamResponse:
    body = gzip.compress(b'{"keys": [' + b" " * 5_000_000 + b"]}")
    return web.Response(body=body, headers={"Content-Encoding": "gzip"})


async def bare(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"[" * 100_000)


def oct_keys() -> Any:
    return {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "RS256", "alg": "HS256"}]}


def lies(elsewhere: str) -> dict[str, tuple[str, Answer, str]]:
    """What an issuer may answer: where, what, and what the log says then."""
    return {
        "another issuer": (DISCOVERY, saying({"issuer": "https://evil.example", "jwks_uri": elsewhere}), "very same"),
        "no issuer": (DISCOVERY, saying({"jwks_uri": elsewhere}), "very same"),
        "a list": (DISCOVERY, saying([]), "very same"),
        "redirect": (DISCOVERY, saying({}, 302, {"Location": elsewhere}), "answered 302"),
        "keys redirect": (JWKS, saying({}, 307, {"Location": elsewhere}), "answered 307"),
        "an error": (JWKS, saying({}, 500), "answered 500"),
        "100 MB": (JWKS, Endless(100_000_000), "larger than"),
        "endless": (DISCOVERY, Endless(), "larger than"),
        "never ends": (JWKS, dripping, "within 0.5 s"),
        "zipped": (JWKS, zipped, "not JSON"),
        "deep": (JWKS, bare, "not JSON"),
        "no keys": (JWKS, saying({"keys": []}), "no key that checks"),
        "keys of no use": (JWKS, saying(oct_keys()), "no key that checks"),
        "too many keys": (JWKS, saying({"keys": [{}] * 101}), "more than 100 keys"),
        "keys that are none": (JWKS, saying({"keys": {"a": 1}}), "list of keys"),
    }


@pytest.mark.parametrize("name", lies(""))
async def test_a_discovery_that_lies_gives_no_keys(
    name: str,
    issuer: Issuer,
    stranger: Issuer,
    clock: ManualClock,
    tasks: Tasks,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, answer, told = lies(stranger.origin + JWKS)[name]
    issuer.answers[path] = answer
    keys = keys_from(issuer, clock, tasks)
    with pytest.raises(KeysUnavailableError):
        await keys.find("RS256", "RS256")
    assert told in caplog.text
    if isinstance(answer, Endless):
        assert answer.sent < 100 * MOST_BYTES


@pytest.mark.parametrize("place", ["STRANGER", "http://issuer.example/keys", "file:///etc/passwd", "//x", None, 7, ""])
async def test_keys_at_another_origin_are_not_fetched(
    place: Any, issuer: Issuer, stranger: Issuer, clock: ManualClock, tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    place = stranger.origin + JWKS if place == "STRANGER" else place
    issuer.answers[DISCOVERY] = saying({"issuer": issuer.url, "jwks_uri": place})
    keys = keys_from(issuer, clock, tasks)
    with pytest.raises(KeysUnavailableError):
        await keys.find("RS256", "RS256")
    assert "another origin" in caplog.text
    assert issuer.asked == [DISCOVERY]


ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")


def test_keys_are_for_what_they_say() -> None:
    rsa_key, ec_key = private_key("RS256"), private_key("ES256")
    document = {
        "keys": [
            public_jwk(rsa_key, kid="any"),
            public_jwk(rsa_key, kid="only", alg="PS256"),
            public_jwk(rsa_key, kid="encrypts", use="enc"),
            public_jwk(rsa_key, kid="wraps", key_ops=["wrapKey"]),
            public_jwk(rsa_key, kid=7),
            public_jwk(ec_key, kid="ec"),
            public_jwk(private_key("ES384"), kid="another curve"),
            {"kty": "EC", "crv": "P-256", "kid": "broken", "x": 1, "y": None},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "short"},
            None,
        ]
    }
    found = keys_of(document, ALGORITHMS)
    assert set(found.by_id) == {("any", "RS256"), ("any", "PS256"), ("only", "PS256"), ("ec", "ES256")}
    assert found.find(None, "RS256") is found.find("any", "RS256")
    assert found.find(None, "PS256") is None, "two of them: which is not said"
    with pytest.raises(KeySetError):
        keys_of(document, ["EdDSA"])


def test_of_a_private_key_only_the_public_half_is_taken_in() -> None:
    secret = json.loads(RSAAlgorithm.to_jwk(private_key("RS256")))
    key = keys_of({"keys": [{**secret, "kid": "k", "key_ops": ["sign", "verify"]}]}, ["RS256"]).find("k", "RS256")
    assert key is not None
    assert not hasattr(key.key, "private_numbers")


async def test_the_log_tells_of_the_keys_once(
    issuer: Issuer, clock: ManualClock, tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keys = keys_from(issuer, clock, tasks, interval=0.01)
    await keys.find("RS256", "RS256")

    async def rounds() -> int:
        return keys.version

    await eventually(rounds, until=lambda count: count > 3)
    assert caplog.text.count("has 3 keys") == 1
