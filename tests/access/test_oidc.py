"""Tokens of an OpenID Connect issuer: which are taken, whose they are, and for how long."""

import logging
from collections.abc import Mapping
from typing import Any

import pytest
from jobledger_server.access.admin import TokenAdmin
from jobledger_server.access.cached_tokens import CachedTokens
from jobledger_server.access.oidc import MOST_KNOWN, _values
from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.access.tokens import Authenticator
from jobledger_server.core.errors import Reason, ServiceError, name_of
from jobledger_server.core.policy import Principal, require
from jobledger_server.core.times import SECOND, micros
from jobledger_server.service.tasks import Tasks
from support.clock import ManualClock
from support.issuer import Issuer
from support.jwt_bench import PEER, Bench

INVALID = Reason.ERROR_REASON_AUTH_INVALID
EXPIRED = Reason.ERROR_REASON_AUTH_TOKEN_EXPIRED


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_token_of_the_issuer_stands_for_its_subject(bench: Bench, algorithm: str) -> None:
    principal = await bench.principal(algorithm, groups=["readers", "runners", "others"])
    assert principal.subject == principal.identity == f"oidc:{bench.issuer.url}#alice"
    assert principal.scopes == {"jobs:read", "jobs:create", "jobs:exec"}
    assert principal.workspaces is None
    assert principal.expires_at == (bench.now + 360) * SECOND


async def test_a_principal_is_the_subject_and_no_other(bench: Bench) -> None:
    ids = {(await bench.principal(sub=sub, jti=jti)).token_id for sub in ("alice", "bob") for jti in ("1", "2")}
    assert len(ids) == 2
    assert all(name.startswith("oidc:") and "alice" not in name for name in ids)


async def test_without_a_claim_that_is_mapped_there_is_no_scope(bench: Bench) -> None:
    for groups in (None, [], ["admin"], "admins readers", {"admins": True}, [["admins"]], 7):
        principal = await bench.principal(groups=groups)
        assert principal.scopes == frozenset(), groups
    with pytest.raises(ServiceError, match=r"scope 'jobs:read': ask an administrator to give it to oidc:.*#alice"):
        require(principal, "jobs:read")


@pytest.mark.parametrize(
    ("claims", "name", "values"),
    [
        ({"scope": "a b"}, "scope", ["a", "b"]),
        ({"environment": "a b"}, "environment", ["a b"]),
        ({"realm_access": {"roles": ["x"]}}, "realm_access.roles", ["x"]),
        ({"https://x.example/roles": ["x"]}, "https://x.example/roles", ["x"]),
        ({"realm_access": ["x"]}, "realm_access.roles", []),
        ({"a": ["x", 1, None]}, "a", ["x"]),
    ],
)
def test_values_of_claims(claims: Mapping[str, Any], name: str, values: list[str]) -> None:
    assert _values(claims, name) == values


async def test_a_workspace_claim_binds_and_without_it_nothing_is_allowed(
    issuer: Issuer, clock: ManualClock, tasks: Tasks
) -> None:
    bench = Bench(issuer, clock, tasks, workspace_claim="teams")
    bound = await bench.principal(groups=["readers"], teams=["red", "blue"])
    assert (bound.scopes, bound.workspaces) == (frozenset({"jobs:read"}), frozenset({"red", "blue"}))
    nothing: list[Any] = [None, [], {}, [1]]
    for teams in nothing:
        unbound = await bench.principal(groups=["admins"], teams=teams)
        assert (unbound.scopes, unbound.workspaces) == (frozenset(), frozenset())


async def test_times_have_a_minute_of_leeway(bench: Bench) -> None:
    now = bench.now
    await bench.principal(exp=now - 59)
    assert await bench.refused(bench.issuer.sign(bench.claims(exp=now - 60))) == EXPIRED
    await bench.principal(nbf=now + 60, iat=now + 60)
    assert await bench.refused(bench.issuer.sign(bench.claims(nbf=now + 61))) == INVALID
    assert await bench.refused(bench.issuer.sign(bench.claims(iat=now + 61))) == INVALID


async def test_who_comes_with_an_expired_token_is_told_to_the_audit_log(bench: Bench) -> None:
    good = await bench.principal()
    with pytest.raises(ServiceError) as caught:
        await bench.principal(exp=bench.now - 60)
    assert (caught.value.token_id, caught.value.subject) == (good.token_id, good.subject)
    with pytest.raises(ServiceError) as caught:
        await bench.principal(exp=bench.now - 60, aud="another")
    assert (caught.value.token_id, caught.value.subject) == ("", "")


async def test_a_token_that_was_good_ends_when_it_expires(bench: Bench, clock: ManualClock) -> None:
    token = bench.issuer.sign(bench.claims(exp=bench.now - 30))
    ends = (await bench.take(token)).expires_at
    clock.advance(29.9)
    await bench.take(token)
    clock.advance(0.1)
    assert clock.now() == ends
    for _ in range(3):
        assert await bench.refused(token) == EXPIRED


async def test_a_good_token_is_checked_once_a_minute(
    bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, checks = bench.issuer.sign(bench.claims()), 0
    await bench.keys.find(None, "RS256")
    check = bench.jwts._verify

    async def counted(raw: bytes) -> Principal:
        nonlocal checks
        checks += 1
        return await check(raw)

    monkeypatch.setattr(bench.jwts, "_verify", counted)
    for seconds in (0, 30, 29.9):
        clock.advance(seconds)
        await bench.take(token)
    assert checks == 1
    clock.advance(0.1)
    await bench.take(token)
    assert checks == 2
    # A key may have been withdrawn since.
    bench.keys.version += 1
    await bench.take(token)
    assert checks == 3


async def test_what_is_remembered_is_bounded(bench: Bench) -> None:
    await bench.keys.find(None, "RS256")
    principal = await bench.principal()
    for number in range(MOST_KNOWN + 10):
        bench.jwts._remember(number.to_bytes(32), principal)
    assert len(bench.jwts._known) == MOST_KNOWN
    assert bench.jwts._recall((MOST_KNOWN + 9).to_bytes(32)) == principal


async def test_a_bound_on_the_lifetime(issuer: Issuer, clock: ManualClock, tasks: Tasks) -> None:
    bench = Bench(issuer, clock, tasks, max_lifetime_seconds=300)
    await bench.principal()
    for claims in ({"exp": bench.now + 301}, {"iat": None}):
        assert await bench.refused(issuer.sign(bench.claims(**claims))) == INVALID


async def test_a_token_that_is_too_long_is_malformed(bench: Bench) -> None:
    token = bench.issuer.sign(bench.claims(padding="x" * 8192))
    assert await bench.refused(token) == Reason.ERROR_REASON_AUTH_MALFORMED


async def test_the_log_says_why_once_a_minute_and_nothing_of_the_token(
    bench: Bench, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = bench.issuer.sign(bench.claims(aud="another", sub="bob@mail.example", email="bob@mail.example"))
    for _ in range(50):
        assert await bench.refused(token) == INVALID
    await bench.principal(sub="eve@mail.example", email="eve@mail.example")
    assert caplog.text.count("a JWT was refused: it is for another audience") == 1
    clock.advance(60)
    await bench.refused(token)
    assert caplog.text.count("a JWT was refused: it is for another audience") == 2
    assert "mail.example" not in caplog.text
    assert token.split(".")[1][:20] not in caplog.text


async def test_guessing_is_throttled_and_a_good_token_never(issuer: Issuer, clock: ManualClock, tasks: Tasks) -> None:
    bench = Bench(issuer, clock, tasks)
    bench.jwts._throttle = FailureThrottle(clock=clock)
    wrong = issuer.sign(bench.claims(aud="another"))
    reasons = [name_of(await bench.refused(wrong)) for _ in range(12)]
    assert reasons == ["AUTH_INVALID"] * 10 + ["AUTH_RATE_LIMITED"] * 2
    await bench.principal()
    assert name_of(await bench.refused(issuer.sign(bench.claims(exp=bench.now - 100)))) == "AUTH_TOKEN_EXPIRED"


async def test_tokens_of_both_kinds_are_told_apart(
    bench: Bench, authenticator: Authenticator, admin: TokenAdmin, tokens: CachedTokens, clock: ManualClock
) -> None:
    both = Authenticator(tokens=tokens, clock=clock, throttle=FailureThrottle(clock=clock), jwts=bench.jwts)
    own, theirs = f"Bearer {await admin.create_first()}", f"Bearer {bench.issuer.sign(bench.claims())}"
    assert (await both.authenticate([own], PEER)).subject == ""
    assert (await both.authenticate([theirs], PEER)).subject.endswith("#alice")
    for values in ([theirs, own], [f"{theirs}.x"], [theirs + "="], ["Bearer a.b"], ["Bearer .."], ["Bearer a.b.c\n"]):
        with pytest.raises(ServiceError, match="AUTH_MALFORMED"):
            await both.authenticate(values, PEER)
    with pytest.raises(ServiceError, match="AUTH_MALFORMED"):
        await authenticator.authenticate([theirs], PEER)


async def test_a_caller_without_a_token_of_ours_is_told_who_it_is(bench: Bench, admin: TokenAdmin) -> None:
    principal = await bench.principal(groups=["readers"])
    info = await admin.whoami(principal)
    assert (info.token_id, info.name, list(info.scopes)) == (principal.token_id, principal.subject, ["jobs:read"])
    assert micros(info.expires_at) == principal.expires_at
