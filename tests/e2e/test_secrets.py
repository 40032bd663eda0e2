"""Secrets by reference: who may have them, and that they are found nowhere but in the job that has them."""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import grpc
import pytest
from support.doors import Door, GrpcDoor, Refused, RestDoor
from support.eventually import eventually
from support.running import RunningServer, output_file, run_cli, start

KEYED = {"spec": {"command": ["true"]}, "idempotency_key": "kept"}
REFERENCES = {"TOKEN": "secret:env:API_TOKEN", "KEY": "secret:file:{key}"}
TELLS = """
printf %.7s "$TOKEN"; printf '%s\\n' "${TOKEN#???????}"
printf '%s\\n%s' "$TOKEN" "$KEY" >&2
printf '%s' "$TOKEN" > "$JOBLEDGER_OUTPUT_DIR/kept"
mkdir "$JOBLEDGER_OUTPUT_DIR/of-$TOKEN"
touch "$JOBLEDGER_OUTPUT_DIR/$TOKEN.txt" "$JOBLEDGER_OUTPUT_DIR/of-$TOKEN/a"
{
    printf '{"type": "log", "level": "info", "message": "%s"}\\n' "$TOKEN"
    printf '{"type": "progress", "phase": "%s"}\\n' "$TOKEN"
    printf '{"type": "artifact", "path": "%s"}\\n' "$TOKEN"
    printf '{"type": "checkpoint", "data": {"token": "%s"}}\\n' "$TOKEN"
} > "$JOBLEDGER_CONTROL"
echo "told ${#KEY}"
"""
WAITS = 'while [ ! -e "$GATE.$JOBLEDGER_ATTEMPT" ]; do sleep 0.05; done; echo "$TOKEN"; exit $((2 - JOBLEDGER_ATTEMPT))'
LINGERS = 'trap \'printf "bye %s" "$TOKEN"; exit 1\' TERM; while [ ! -e "$GATE.over" ]; do sleep 0.05; done'


@dataclass
class Vault:
    """A token in the server's environment, and a key of several lines in a file."""

    token: str
    file: Path

    def __post_init__(self) -> None:
        token = self.token.encode()
        self._needles = [token, token.hex().encode(), base64.b64encode(token)]

    def write_key(self, lines: int) -> None:
        """Another key of so many lines."""
        self.file.parent.mkdir(exist_ok=True)
        body = [secrets.token_urlsafe(33) for _ in range(lines)]
        self.file.write_text("\n".join(["-----BEGIN KEY-----", *body, "-----END KEY-----\n"]))
        self._needles = [*self._needles, *map(str.encode, body)]

    def watch_token(self, token: str) -> None:
        """Every eight characters in a row of its secret count as it, and all of it in the encodings of the others."""
        secret = token.split("_", 2)[2].encode()
        windows = [secret[start : start + 8] for start in range(len(secret) - 7)]
        self._needles = [*self._needles, *windows, secret.hex().encode(), base64.b64encode(token.encode())]

    def found_in(self, data: bytes) -> bool:
        """Whether something of it is there, as it is or encoded."""
        return any(needle in data for needle in self._needles)

    @property
    def env(self) -> dict[str, str]:
        """What a job says to have both."""
        return {name: reference.format(key=self.file) for name, reference in REFERENCES.items()}


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vault:
    vault = Vault(secrets.token_hex(20), tmp_path / "vault" / "key.pem")
    vault.write_key(4)
    monkeypatch.setenv("API_TOKEN", vault.token)
    return vault


@asynccontextmanager
async def opened(server: RunningServer, kind: str = "grpc") -> AsyncIterator[Door]:
    if kind == "grpc":
        async with grpc.aio.insecure_channel(server.target) as channel:
            yield GrpcDoor(channel, server.token)
    else:
        async with aiohttp.ClientSession() as session:
            yield RestDoor(session, server.url, server.token)


def flags(vault: Vault) -> tuple[str, ...]:
    return "--secret", "API_TOKEN", "--secret", "NOT_SET", "--secret", str(vault.file.parent), "--max-running", "4"


def leaks(data_dir: Path, vault: Vault) -> list[str]:
    """Files of the server, but for the token's own and what the job itself has written, and titles of processes."""
    own = ("blobs", "output")
    files = [
        path
        for path in (*data_dir.rglob("*"), output_file(data_dir))
        if path.is_file() and not set(own) & set(path.relative_to(data_dir.parent).parts) and path != data_dir / "token"
    ]
    assert data_dir / "jobledger.db" in files
    return [str(path) for path in (*files, *titles()) if vault.found_in(content(path))]


def titles() -> Iterator[Path]:
    return Path("/proc").glob("[0-9]*/cmdline")


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


async def said(door: Door, job_id: str, text: str) -> None:
    async def messages() -> list[str]:
        return [entry["message"] for entry in (await door.call("GetLogs", job_id=job_id))["logs"]]

    await eventually(messages, until=lambda seen: any(text in message for message in seen))


async def answers(server: RunningServer, job_ids: list[str]) -> bytes:
    """All that the server tells of the jobs through both doors, of what happened, and of itself."""
    told: list[object] = []
    for kind in ("grpc", "rest"):
        async with opened(server, kind) as door:
            told += [await door.get(job_id) for job_id in job_ids]
            told += [await door.call("GetLogs", job_id=job_id) for job_id in job_ids]
            told += [(await door.receipt(job_id, form))[0].decode() for job_id in job_ids for form in ("json", "dsse")]
            told += [await door.call("ListJobs"), await door.call("GetStatus")]
            async for event in door.events(resume_from=0):
                told.append(event)
                if event["event_type"] == "replay.complete":
                    break
    headers = {"Authorization": f"Bearer {server.token}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{server.url}/metrics") as response:
        told.append(await response.text())
        for path in ("/v1/tokens", "/v1/audit", "/gateway/status"):
            async with session.get(f"{server.url}{path}") as listed:
                told.append(await listed.text())
    return json.dumps(told, default=str).encode()


async def tells_of_redaction(server: RunningServer, job_id: str) -> bool:
    headers, url = {"Authorization": f"Bearer {server.token}"}, f"{server.url}/v1/jobs/{job_id}/logs/content"
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as response:
        return response.headers["Jobledger-Log-Redacted"] == "true"


async def use_tokens(server: RunningServer, vault: Vault) -> None:
    """Tokens made, used at both doors, refused, rotated and revoked; none of them may be found later."""
    vault.watch_token(server.token)
    async with aiohttp.ClientSession() as session:
        scopes = ["jobs:read", "jobs:create", "jobs:exec"]
        made = await ask(session, f"{server.url}/v1/tokens", server.token, 201, name="made", scopes=scopes)
        path = f"{server.url}/v1/tokens/{made['token'].split('_')[1]}"
        rotated = await ask(session, f"{path}/rotate", server.token, 200)
        wrong = made["token"][:-8] + secrets.token_hex(4)
        for token in (made["token"], rotated["token"], wrong):
            vault.watch_token(token)
        expected = {made["token"]: (200, 404, 403), rotated["token"]: (200, 404, 403), wrong: (401, 401, 401)}
        for token, statuses in expected.items():
            headers = {"Authorization": f"Bearer {token}"}
            for request, status in zip(("jobs", "jobs/none", "tokens"), statuses, strict=True):
                async with session.get(f"{server.url}/v1/{request}", headers=headers) as response:
                    assert (response.status, vault.found_in(await response.read())) == (status, False)
        same = [await ask(session, f"{server.url}/v1/jobs", it["token"], 201, **KEYED) for it in (made, rotated)]
        assert same[0]["job_id"] == same[1]["job_id"], "a rotation keeps the keys of requests"
        await ask(session, f"{path}/revoke", server.token, 200)
    async with grpc.aio.insecure_channel(server.target) as channel:
        await GrpcDoor(channel, rotated["token"]).call("ListJobs")
        for token in (wrong, "jl_" + wrong, wrong * 2):
            with pytest.raises(Refused) as refused:
                await GrpcDoor(channel, token).call("ListJobs")
            assert not vault.found_in(str(refused.value).encode())


async def ask(session: aiohttp.ClientSession, url: str, token: str, status: int, **body: object) -> dict[str, str]:
    """The answer to a POST of JSON."""
    headers = {"Authorization": f"Bearer {token}"}
    async with session.post(url, json=body, headers=headers) as response:
        assert response.status == status
        return dict(await response.json())


async def test_a_secret_is_nowhere_but_in_the_job(
    tmp_path: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a kill of the server, a retry, a cancel, and a server that does not have it any more.

    No more is a token anywhere but in its file: not after it was used, refused, rotated and revoked.
    """
    data_dir, gate = tmp_path / "data", tmp_path / "gate"
    env = {**vault.env, "GATE": str(gate)}
    server = start(data_dir, *flags(vault))
    try:
        await use_tokens(server, vault)
        async with opened(server) as door:
            retried = (await door.create("sh", "-c", TELLS + WAITS, env=env, max_attempts=2))["job_id"]
            cancelled = (await door.create("sh", "-c", TELLS + LINGERS, env=env))["job_id"]
            for job_id in (retried, cancelled):
                await said(door, job_id, "told")
        assert leaks(data_dir, vault) == []
        server.kill()
        assert leaks(data_dir, vault) == []
        server = start(data_dir, *flags(vault))
        async with opened(server) as door:
            assert (await door.get(retried))["attempt"] == 1
            vault.write_key(9)
            gate.with_suffix(".1").touch()
            await eventually(lambda: door.get(retried), until=lambda job: job["attempt"] == 2)
            key = vault.file.read_text().strip()
            await said(door, retried, f"told {len(key)}")
        server.kill()
        monkeypatch.delenv("API_TOKEN")
        server = start(data_dir, "--max-running", "4")
        async with opened(server) as door:
            gate.with_suffix(".2").touch()
            await door.cancel(cancelled)
            ended = [await door.ended(job_id) for job_id in (retried, cancelled)]
            assert [job["state"] for job in ended] == ["completed", "cancelled"]
            assert ended[0]["spec"]["env"] == env
            await said(door, cancelled, "bye ***")
            for job_id in (retried, cancelled):
                receipt = json.loads((await door.receipt(job_id, "json"))[0])
                assert [it["path"] for it in receipt["outputs"]] == ["kept"]
                assert receipt["refused"] == [{"path": "***", "reason": "its name holds a secret"}]
        assert await tells_of_redaction(server, cancelled)
        assert not vault.found_in(await answers(server, [retried, cancelled]))
        copied = await asyncio.to_thread(run_cli, server, "backup", str(tmp_path / "copy"), afresh=True)
        assert (copied.returncode, vault.found_in((copied.stdout + copied.stderr).encode())) == (0, False)
        assert server.stop() == 0
        assert leaks(data_dir, vault) == []
        assert leaks(tmp_path / "copy", vault) == []
        outputs = [path.read_text() for path in data_dir.glob("jobs/*/output/kept")]
        assert outputs == [vault.token, vault.token], "artifacts are the job's own: nothing is changed in them"
    finally:
        for suffix in (".1", ".2", ".over"):
            gate.with_suffix(suffix).touch()
        server.kill()


async def test_what_the_operator_does_not_allow_is_refused_through_both_doors(tmp_path: Path, vault: Vault) -> None:
    server = start(tmp_path / "data", *flags(vault))
    expected = {
        "secret:env:HOME": "E_FORBIDDEN",
        "secret:env:": "E_VALIDATION",
        "secret:file:/etc/hostname": "E_PATH_NOT_ALLOWED",
        f"secret:file:{vault.file.parent}/../x": "E_PATH_TRAVERSAL",
    }
    try:
        for kind in ("grpc", "rest"):
            async with opened(server, kind) as door:
                for reference, error_code in expected.items():
                    with pytest.raises(Refused) as caught:
                        await door.create("true", env={"A": reference})
                    assert caught.value.error_code == error_code
                    assert "spec.env[A]" in caught.value.message
                assert (await door.call("ListJobs"))["total"] == 0
    finally:
        server.stop()


async def test_a_job_whose_secret_is_missing_or_too_short_fails_and_names_it(tmp_path: Path, vault: Vault) -> None:
    (vault.file.parent / "short").write_text("seven-7\n")
    server = start(tmp_path / "data", *flags(vault))
    complaints = {
        "secret:env:NOT_SET": "is not set in the server's environment",
        f"secret:file:{vault.file}.missing": "is not there, or no file",
        f"secret:file:{vault.file.parent}/short": "has 7 bytes: what is shorter than 8 can't be kept out of the log",
    }
    try:
        async with opened(server) as door:
            created = [await door.create("true", env={"A": reference}) for reference in complaints]
            ended = await asyncio.gather(*(door.ended(job["job_id"]) for job in created))
    finally:
        server.stop()
    assert {(job["state"], job["error_code"]) for job in ended} == {("failed", "E_JOB_SPAWN_FAILED")}
    assert [job["error_message"] for job in ended] == [
        f"spec.env[A]: {reference} {why}" for reference, why in complaints.items()
    ]
