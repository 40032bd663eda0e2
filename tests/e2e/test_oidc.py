"""Tokens of an OpenID Connect issuer on a whole server, through both doors."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from support.doors import Door, GrpcDoor, Refused, RestDoor
from support.issuer import Issuer, forged, hmac_by, issuing
from support.running import RunningServer, output_file, run_cli, start

CONFIG = """
[oidc]
issuer = "{issuer}"
audience = ["jobledger"]
scope_claim = "realm_access.roles"
workspace_claim = "teams"
[oidc.scope_map]
jobs-runners = ["jobs:read", "jobs:create", "jobs:exec", "jobs:cancel"]
jobs-readers = ["jobs:read"]
"""
UNAUTHENTICATED = (401, "UNAUTHENTICATED")


class Doors:
    """Both doors to one server, for whatever token."""

    def __init__(self, server: RunningServer, channel: grpc.aio.Channel, session: aiohttp.ClientSession) -> None:
        self.server, self.channel, self.session = server, channel, session

    def both(self, token: str) -> tuple[Door, Door]:
        return GrpcDoor(self.channel, token), RestDoor(self.session, self.server.url, token)


@asynccontextmanager
async def serving(issuer: Issuer, tmp_path: Path) -> AsyncIterator[Doors]:
    (tmp_path / "jobledger.toml").write_text(CONFIG.format(issuer=issuer.url))
    server = await asyncio.to_thread(start, tmp_path / "data", "--config", str(tmp_path / "jobledger.toml"))
    try:
        async with grpc.aio.insecure_channel(server.target) as channel, aiohttp.ClientSession() as session:
            yield Doors(server, channel, session)
    finally:
        await asyncio.to_thread(server.stop)


def token_of(issuer: Issuer, *roles: str, **claims: Any) -> str:
    found = issuer.claims(time.time(), realm_access={"roles": list(roles)}, teams=["red"], email="al@mail.example")
    return issuer.sign({**found, **claims})


async def test_an_issuers_tokens_are_taken_through_both_doors(tmp_path: Path) -> None:
    """One server for all of it: a start takes longer than the rest."""
    async with issuing() as issuer, serving(issuer, tmp_path) as doors, asyncio.TaskGroup() as beside:
        beside.create_task(_streams_end_with_the_token(doors, issuer))
        await _runs_jobs_in_its_workspace(doors, issuer)
        await _may_no_more_than_its_roles(doors, issuer)
        await _forgers_get_nothing(doors, issuer)
        await _is_told_who_it_is(doors, issuer)
        for door in doors.both(doors.server.token):
            await door.call("ListJobs")
        told = output_file(doors.server.data_dir).read_text()
    assert "a JWT was refused" in told
    assert "mail.example" not in told
    assert "eyJ" not in told, "a token is in the log"


async def _runs_jobs_in_its_workspace(doors: Doors, issuer: Issuer) -> None:
    subject = f"oidc:{issuer.url}#alice"
    runner = token_of(issuer, "jobs-runners")
    keyed = set()
    for door in doors.both(runner):
        job_id = (await door.create("true", workspace_id="red", key="once"))["job_id"]
        await door.ended(job_id)
        receipt = json.loads((await door.receipt(job_id))[0])
        assert (receipt["requested_by"], receipt["cancelled_by"]) == (subject, None)
        cancelled = (await door.create("sleep", "600", workspace_id="red"))["job_id"]
        await door.cancel(cancelled)
        await door.ended(cancelled)
        assert json.loads((await door.receipt(cancelled))[0])["cancelled_by"] == subject
        with pytest.raises(Refused) as refused:
            await door.create("true", workspace_id="blue")
        assert refused.value.error_code == "E_FORBIDDEN"
        keyed.add(job_id)
    assert len(keyed) == 1, "one subject, one key, one job"
    (job_id,) = keyed
    elsewhere = token_of(issuer, "jobs-runners", teams=["blue"])
    await _a_key_finds_no_job_that_its_token_may_not_see(doors, runner, elsewhere)
    for door in doors.both(elsewhere):
        with pytest.raises(Refused) as refused:
            await door.get(job_id)
        assert refused.value.error_code == "E_JOB_NOT_FOUND"
    for token, exit_code in ((runner, 0), (elsewhere, 4)):
        assert await asyncio.to_thread(_exit_of_get, doors.server, token, job_id) == exit_code


async def _a_key_finds_no_job_that_its_token_may_not_see(doors: Doors, red: str, blue: str) -> None:
    """The same subject, body and key: the workspace is the one that the token is bound to."""
    tokens = {"red": red, "blue": blue}
    made = [
        (workspace, await door.create("true", key="unplaced"))
        for workspace in ("red", "blue", "red")
        for door in doors.both(tokens[workspace])
    ]
    assert {(workspace, job["workspace_id"]) for workspace, job in made} == {("red", "red"), ("blue", "blue")}
    assert len({job["job_id"] for _, job in made}) == 2


def _exit_of_get(server: RunningServer, token: str, job_id: str) -> int:
    """Of the CLI, which takes a token from its environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOBLEDGER_TOKEN", token)
        patch.setenv("JOBLEDGER_TARGET", server.target)
        return run_cli(server, "get", job_id).returncode


async def _may_no_more_than_its_roles(doors: Doors, issuer: Issuer) -> None:
    for roles, teams in (((), ["red"]), (("admin",), ["red"]), (("jobs-runners",), [])):
        for door in doors.both(token_of(issuer, *roles, teams=teams)):
            with pytest.raises(Refused) as refused:
                await door.call("ListJobs")
            assert (refused.value.error_code, refused.value.status) in (
                ("E_FORBIDDEN", 403),
                ("E_FORBIDDEN", "PERMISSION_DENIED"),
            )
            assert f"ask an administrator to give it to oidc:{issuer.url}#alice" in refused.value.message


async def _forgers_get_nothing(doors: Doors, issuer: Issuer) -> None:
    good = issuer.claims(time.time(), realm_access={"roles": ["jobs-runners"]}, teams=["red"])
    public = json.dumps(issuer.jwks[0]).encode()
    asked = len(issuer.asked)
    tokens = {
        "none": forged({"alg": "none"}, good),
        "hmac": forged({"alg": "HS256", "kid": "RS256"}, good, hmac_by(public)),
        "aud": issuer.sign({**good, "aud": "another"}),
        "iss": issuer.sign({**good, "iss": "https://evil.example"}),
        "jku": forged({"alg": "RS256", "kid": "x", "jku": f"{issuer.origin}/evil"}, good, lambda _: b"x" * 256),
        "kid": forged({"alg": "RS256", "kid": "../../x"}, good, lambda _: b"x" * 256),
        "nbf": issuer.sign({**good, "nbf": time.time() + 3600}),
        "exp": issuer.sign({**good, "exp": time.time() - 3600}),
        "malformed": "a.b",
    }
    codes = {"exp": "E_AUTH_TOKEN_EXPIRED", "malformed": "E_AUTH_MALFORMED"}
    for name, token in tokens.items():
        for door in doors.both(token):
            with pytest.raises(Refused) as refused:
                await door.call("ListJobs")
            if refused.value.error_code == "E_AUTH_RATE_LIMITED":
                continue
            assert refused.value.error_code == codes.get(name, "E_AUTH_INVALID"), name
            assert refused.value.status in UNAUTHENTICATED
    # Two of them name keys that the issuer may have had since; the address that one brings is not looked at.
    assert set(issuer.asked[asked:]) <= {"/realms/test/.well-known/openid-configuration", "/realms/test/keys"}
    for door in doors.both(issuer.sign(good)):
        await door.call("ListJobs")


async def _is_told_who_it_is(doors: Doors, issuer: Issuer) -> None:
    headers = {"Authorization": f"Bearer {token_of(issuer, 'jobs-readers')}"}
    async with doors.session.get(f"{doors.server.url}/v1/engine/whoami", headers=headers) as response:
        told = await response.json()
    assert (told["name"], told["scopes"], told["workspaces"]) == (f"oidc:{issuer.url}#alice", ["jobs:read"], ["red"])


async def _streams_end_with_the_token(doors: Doors, issuer: Issuer) -> None:
    """Its last minute is the leeway."""
    exp = time.time() - 58
    async with asyncio.timeout(40):
        codes = await asyncio.gather(*map(_end_of, doors.both(token_of(issuer, "jobs-readers", exp=exp))))
    assert codes == ["E_AUTH_TOKEN_EXPIRED", "E_AUTH_TOKEN_EXPIRED"]
    assert time.time() >= exp + 60


async def _end_of(door: Door) -> str:
    try:
        async for event in door.events():
            if event.get("error_code"):
                return str(event["error_code"])
    except Refused as refused:
        return refused.error_code
    return "ended without a word"
