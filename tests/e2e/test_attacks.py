"""What hostile callers and hostile jobs try, and what must hold all the same."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from support.doors import Door, Refused, RestDoor, server_sent
from support.eventually import eventually
from support.running import RunningServer, output_file, run_cli
from support.tokens import audited, issue, post, with_token

JUNK = b"\xff\xff\xff"
Told = list[tuple[str, str, str, str, int]]
# A receipt, and what a supervisor writes of start, artifacts, and an end that was good; then the server looks at it.
FORGE = """
for name in receipt.json receipt.dsse.json; do
    echo '{"receipt_status": "final", "summary": {"status": "completed", "exit_code": 0}}' > "$JOBLEDGER_JOB_DIR/$name"
done
control="$JOBLEDGER_JOB_DIR/../../control/$JOBLEDGER_JOB_ID.$JOBLEDGER_ATTEMPT"
[ -e "$control/started.json" ] || kill -9 $$
good='"reason": "exited", "exit_code": 0, "message": "", "started_at": 1, "ended_at": 2, "log": {}'
echo "{\\"protocol\\": 1, $good}" > "$control/exit.json"
echo '{"protocol": 1, "pid": 1, "shim": 1}' > "$control/started.json"
echo '["forged"]' > "$control/artifacts.json"
echo "$JOBLEDGER_JOB_ID $JOBLEDGER_ATTEMPT" > "$JOBLEDGER_JOB_DIR/../../run/wake"
sleep 0.5
"""


async def token_of(rest: RestDoor, **fields: object) -> RestDoor:
    """The same door with another token."""
    headers = {**rest.headers, "Content-Type": "application/json"}
    async with rest.session.post(f"{rest.url}/v1/tokens", data=json.dumps(fields), headers=headers) as response:
        assert response.status == 201
        return RestDoor(rest.session, rest.url, (await response.json())["token"])


@pytest.mark.parametrize("method", ["GetJob", "WatchEvents", "Nothing"])
async def test_bytes_that_are_no_message_tell_a_stranger_nothing(server: RunningServer, method: str) -> None:
    """The token comes before the request is read; no text of an exception leaves."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        call: Any = channel.unary_unary(f"/jobledger.v1.JobService/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as stranger:
            await call(JUNK)
        assert stranger.value.code() is grpc.StatusCode.UNAUTHENTICATED
        if method == "Nothing":
            return
        with pytest.raises(grpc.aio.AioRpcError) as known:
            await call(JUNK, metadata=(("authorization", f"Bearer {server.token}"),))
        assert known.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "DecodeError" not in (known.value.details() or "")


async def test_a_bound_token_sees_nothing_of_other_workspaces(rest: RestDoor) -> None:
    secret = (await rest.create("echo", "secret", workspace_id="secret"))["job_id"]
    await rest.ended(secret)
    bound = await token_of(rest, name="bound", scopes=["jobs:read", "jobs:cancel"], workspaces=["open"])
    absent = f"job_{'0' * 26}"
    for verb in ("GetJob", "GetLogs", "GetArtifacts", "CancelJob", "WaitJob"):
        answers = []
        for job_id in (secret, absent):
            with pytest.raises(Refused) as refused:
                await bound.call(verb, job_id=job_id)
            answers.append((refused.value.status, refused.value.error_code, refused.value.message))
        assert answers[0] == answers[1]
    with pytest.raises(Refused):
        await bound.receipt(secret)
    assert (await bound.call("ListJobs"))["total"] == 0
    assert (await bound.call("GetStatus"))["jobs_by_state"] == {}
    async for event in bound.events(resume_from=0):
        if event["event_type"] == "replay.complete":
            assert event["replayed_count"] == 0
            break


async def test_an_admin_bound_to_a_workspace_can_not_make_itself_a_wider_token(rest: RestDoor) -> None:
    bound = await token_of(rest, name="bound admin", scopes=["admin"], workspaces=["open"])
    with pytest.raises(AssertionError):
        await token_of(bound, name="wider", scopes=["admin"])
    async with rest.session.get(f"{rest.url}/v1/tokens", headers=bound.headers) as response:
        assert response.status == 403


@pytest.mark.parametrize("scopes", [["jobs:cancel"], ["jobs:create"], ["jobs:read"]])
async def test_each_call_needs_its_scope(rest: RestDoor, scopes: list[str]) -> None:
    limited = await token_of(rest, name="limited", scopes=scopes)
    needs = {"ListJobs": "jobs:read", "CancelJobs": "jobs:cancel", "CreateJob": "jobs:exec", "DeleteJob": "admin"}
    requests: dict[str, dict[str, Any]] = {
        "CreateJob": {"spec": {"command": ["true"]}},
        "CancelJobs": {"label": ["no=ne"]},
        "DeleteJob": {"job_id": f"job_{'0' * 26}"},
    }
    for verb, scope in needs.items():
        if scope in scopes:
            await limited.call(verb, **requests.get(verb, {}))
            continue
        with pytest.raises(Refused) as refused:
            await limited.call(verb, **requests.get(verb, {}))
        assert (refused.value.status, refused.value.error_code) == (403, "E_FORBIDDEN")


async def test_a_token_that_may_only_cancel_gets_the_dashboards_answer(rest: RestDoor) -> None:
    job_id = (await rest.create("sleep", "600"))["job_id"]
    await eventually(lambda: rest.get(job_id), until=lambda job: job["state"] == "running")
    canceller = await token_of(rest, name="canceller", scopes=["jobs:cancel"])
    path = f"{rest.url}/gateway/jobs/{job_id}/cancel"
    async with rest.session.post(path, headers=canceller.headers) as response:
        body = await response.json()
        assert (response.status, body["status"]) == (200, "cancelled")
        assert isinstance(body["cancelled_unix_ms"], int)


@pytest.mark.parametrize(
    ("script", "state", "error_code"),
    [
        ("rm -rf output; exit 0", "completed", None),
        ("rm -rf output; ln -s / output; exit 0", "completed", None),
        ("rm -f control; mkdir control; exit 3", "failed", "E_JOB_EXIT_NONZERO"),
        ("mkdir cancelled receipt.json; exit 0", "completed", None),
        (f"{FORGE} exit 3", "failed", "E_JOB_EXIT_NONZERO"),
        ('cd /; rm -rf "$JOBLEDGER_JOB_DIR"; echo x > "$JOBLEDGER_JOB_DIR"; exit 0', "completed", None),
        ("mkfifo output/f; ln -s /etc/passwd output/l; ln output/a output/b 2>/dev/null; exit 0", "completed", None),
    ],
)
async def test_a_job_that_wrecks_its_directory_ends_as_it_did_with_a_receipt(
    door: Door, script: str, state: str, error_code: str | None
) -> None:
    job_id = (await door.create("sh", "-c", script))["job_id"]
    job = await door.ended(job_id)
    assert (job["state"], job.get("error_code")) == (state, error_code)
    receipt = json.loads((await door.receipt(job_id))[0])
    assert (receipt["summary"]["status"], receipt["summary"]["error_code"]) == (state, error_code)
    assert receipt["outputs"] == []


async def test_a_second_attempt_is_not_stopped_by_what_the_first_left(door: Door) -> None:
    script = 'mkdir -p cancelled; rm -rf control; mkdir control; [ "$JOBLEDGER_ATTEMPT" = 2 ]'
    job_id = (await door.create("sh", "-c", script, max_attempts=2, retry_backoff="0.05s"))["job_id"]
    job = await door.ended(job_id)
    assert (job["state"], job["attempt"]) == ("completed", 2)


async def test_a_daemon_that_hides_is_dead_when_the_job_is_cancelled(door: Door, tmp_path: Path) -> None:
    """Left the group, the session, its parent, its descriptors and its environment."""
    pid_file = tmp_path / "pid"
    daemon = f"exec <&- >&- 2>&-; trap '' TERM; echo $$ > {pid_file}; while :; do sleep 1; done"
    script = f'env -i setsid sh -c "{daemon.replace("$", chr(92) + "$")}" & sleep 600'
    job_id = (await door.create("sh", "-c", script))["job_id"]
    await eventually(lambda: asyncio.to_thread(lambda: pid_file.exists() and bool(pid_file.read_text().strip())))
    daemon_pid = int(pid_file.read_text())
    assert Path(f"/proc/{daemon_pid}").exists()
    await door.cancel(job_id, grace_period="0.2s")
    assert (await door.ended(job_id))["state"] == "cancelled"
    assert not Path(f"/proc/{daemon_pid}").exists()


async def test_the_receipt_of_a_deleted_job_can_still_be_read(door: Door) -> None:
    job_id = (await door.create("true"))["job_id"]
    await door.ended(job_id)
    before, _ = await door.receipt(job_id)
    await door.call("DeleteJob", job_id=job_id)
    assert (await door.receipt(job_id))[0] == before


async def test_a_key_never_runs_a_deleted_job_again(door: Door) -> None:
    key = f"deleted-{door.name}"
    job_id = (await door.create("true", key=key))["job_id"]
    await door.ended(job_id)
    await door.call("DeleteJob", job_id=job_id)
    with pytest.raises(Refused) as refused:
        await door.create("true", key=key)
    assert refused.value.error_code == "E_JOB_NOT_FOUND"


async def test_input_after_the_end_of_input_is_refused(door: Door) -> None:
    job_id = (await door.create("sleep", "600", stdin="open"))["job_id"]
    await eventually(lambda: door.get(job_id), until=lambda job: job["state"] == "running")
    await door.call("SendInput", job_id=job_id, text="last\n", close=True)
    with pytest.raises(Refused) as refused:
        await door.call("SendInput", job_id=job_id, text="lost\n")
    assert refused.value.error_code == "E_JOB_INPUT_CLOSED"
    await door.cancel(job_id)
    await door.ended(job_id)


@pytest.mark.parametrize("query", ["resume_from=abc", "resume_from=1.5"])
async def test_a_resume_point_that_is_no_number_is_its_own_error(rest: RestDoor, query: str) -> None:
    async with rest.session.get(f"{rest.url}/v1/stream?{query}", headers=rest.headers) as response:
        assert (response.status, (await response.json())["error_code"]) == (400, "E_STREAM_INVALID_SEQUENCE")


async def test_a_log_tail_from_the_future_is_refused(rest: RestDoor) -> None:
    job_id = (await rest.create("echo", "one"))["job_id"]
    await rest.ended(job_id)
    path = f"{rest.url}/v1/jobs/{job_id}/logs/tail"
    async with rest.session.get(path, params={"after_sequence": "100"}, headers=rest.headers) as response:
        assert (response.status, (await response.json())["error_code"]) == (400, "E_STREAM_INVALID_SEQUENCE")


async def test_strangers_can_not_fill_the_servers_log(rest: RestDoor, server: RunningServer) -> None:
    before = len(output_file(server.data_dir).read_bytes())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    for _ in range(5):
        # The server hangs up on what it can't read, so each needs a connection of its own.
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
            session.post(f"{rest.url}/v1/jobs", data=b"{}", headers=headers) as response,
        ):
            assert response.status == 401
    assert len(output_file(server.data_dir).read_bytes()) == before


async def test_tokens_are_never_logged(server: RunningServer, rest: RestDoor) -> None:
    await rest.call("ListJobs")
    assert server.token not in output_file(server.data_dir).read_text()


async def test_whole_numbers_in_the_config_reach_the_job_as_they_were(door: Door) -> None:
    job_id = (await door.create("sh", "-c", "cat $JOBLEDGER_JOB_CONFIG", config={"n": 3, "list": [1, 2.5]}))["job_id"]
    await door.ended(job_id)
    logs = await door.call("GetLogs", job_id=job_id)
    assert logs["logs"][0]["message"] == '{"list": [1, 2.5], "n": 3}'


PRINTED = (
    "\x1b[2J\x1b]0;title\x07</script><script>alert(1)</script>\r\nid: 99\r\nevent: end\r\ndata: {}\r\n\r\n"
    '{"type": "progress", "phase": "forged", "progress_percent": 100}\n{"type": "artifact", "path": "forged"}\n'
)


async def test_what_a_job_prints_is_neither_markup_nor_event_nor_message(rest: RestDoor) -> None:
    """It is kept as it is, framed line by line where it is streamed, and never a page of this origin."""
    job_id = (await rest.create("sh", "-c", 'printf %s "$PRINTED"', env={"PRINTED": PRINTED}))["job_id"]
    job = await rest.ended(job_id)
    assert (job["progress_phase"], job["progress_percent"], job["artifacts"]) == (None, None, [])
    path = f"{rest.url}/v1/jobs/{job_id}/logs"
    async with rest.session.get(f"{path}/content", headers=rest.headers) as response:
        assert await response.read() == PRINTED.encode()
        assert response.headers["Content-Type"].startswith("text/plain")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in response.headers["Content-Security-Policy"]
    async with rest.session.get(f"{path}/tail?after_sequence=0", headers=rest.headers) as response:
        told = [event async for event in server_sent(response.content)]
    assert [event["event"] for event in told] == ["log"] * (len(told) - 1) + ["end"]
    entries = [json.loads(event["data"]) for event in told[:-1]]
    assert [entry["job_sequence"] for entry in entries] == list(range(1, len(told)))
    assert {entry["subsystem"] for entry in entries} == {"stdout"}


async def told_of(rest: RestDoor, token_id: str, *, most: int) -> Told:
    """Method, object, decision, reason and count of a token's entries, oldest first, once there are so many."""
    entries = await eventually(lambda: audited(rest, token_id=token_id), until=lambda found: len(found) >= most)
    return [_told(entry) for entry in reversed(entries)]


def _told(entry: dict[str, Any]) -> tuple[str, str, str, str, int]:
    method = entry["method"].rpartition("/")[2]
    return method, entry["object"], entry["decision"], entry["reason"], entry["count"]


async def test_a_change_of_a_token_that_is_not_there_is_not_told_as_done(server: RunningServer, rest: RestDoor) -> None:
    for verb, method in (("revoke", "RevokeToken"), ("rotate", "RotateToken")):
        assert run_cli(server, "token", verb, f"absent-{verb}").returncode != 0
        found = await eventually(partial(audited, rest, job_id=f"absent-{verb}"), until=bool)
        assert [_told(entry) for entry in found] == [(method, f"absent-{verb}", "allowed", "NOT_FOUND", 1)]


async def test_each_job_that_a_call_cancels_is_told_and_a_dry_run_changes_nothing(door: Door, rest: RestDoor) -> None:
    """One entry for each job that has changed; what changes nothing is counted, however often it is called."""
    workspace = f"many-{door.name}"
    jobs = [(await rest.create("sleep", "600", workspace_id=workspace))["job_id"] for _ in range(2)]
    token_id, token = await issue(rest, scopes=["jobs:cancel", "jobs:read"], workspaces=[workspace])
    bound = with_token(door, token)
    for _ in range(30):
        await bound.call("CancelJobs", workspace_id=workspace, dry_run=True)
    assert await told_of(rest, token_id, most=1) == [("CancelJobs", "", "allowed", "NO_CHANGE", 1)]
    await bound.call("CancelJobs", workspace_id=workspace, grace_period="0s")
    told = await told_of(rest, token_id, most=3)
    assert sorted(told[1:]) == [("CancelJobs", job_id, "allowed", "", 1) for job_id in sorted(jobs)]
    for _ in range(30):
        await bound.call("CancelJobs", job_id=jobs)
    assert len(await audited(rest, token_id=token_id)) == 3


async def test_another_ones_job_is_told_as_denied_in_the_log_alone(door: Door, rest: RestDoor) -> None:
    """Reads too, each job by its id; the caller is told what it would be of a job that is not there."""
    foreign = [(await rest.create("true", workspace_id="other"))["job_id"] for _ in range(3)]
    token_id, token = await issue(rest, scopes=["admin"], workspaces=["mine"])
    bound = with_token(door, token)
    for verb in ("GetJob", "CancelJob", "GetLogs", "DeleteJob"):
        for job_id in foreign:
            with pytest.raises(Refused) as refused:
                await bound.call(verb, job_id=job_id)
            assert refused.value.error_code == "E_JOB_NOT_FOUND"
    await bound.call("CancelJobs", job_id=foreign[:1])
    told = await told_of(rest, token_id, most=14)
    expected = [
        (verb, job_id, "denied", "JOB_NOT_FOUND", 1)
        for verb in ("GetJob", "CancelJob", "GetLogs", "DeleteJob")
        for job_id in foreign
    ]
    assert told[:12] == expected
    assert sorted(told[12:]) == [
        ("CancelJobs", "", "allowed", "NO_CHANGE", 1),
        ("CancelJobs", foreign[0], "denied", "JOB_NOT_FOUND", 1),
    ]
    absent = f"job_{'0' * 26}"
    with pytest.raises(Refused):
        await bound.call("GetJob", job_id=absent)
    assert await audited(rest, token_id=token_id, job_id=absent) == []


async def test_another_ones_job_that_is_named_elsewhere_is_told_too(door: Door, rest: RestDoor) -> None:
    """As the one to run again, and in a filter of events, which is no error."""
    foreign = [(await rest.create("true", workspace_id="other"))["job_id"] for _ in range(2)]
    absent = f"job_{'0' * 26}"
    token_id, token = await issue(rest, scopes=["jobs:read", "jobs:create"], workspaces=["mine"])
    bound = with_token(door, token)
    for job_id in (absent, foreign[0]):
        with pytest.raises(Refused) as refused:
            await bound.call("CreateJob", spec={"rerun_of": job_id})
        assert refused.value.error_code == "E_JOB_NOT_FOUND"
    told = await told_of(rest, token_id, most=2)
    assert told[1:] == [("CreateJob", foreign[0], "denied", "JOB_NOT_FOUND", 1)]
    async for event in bound.events(resume_from=0, job_id=[absent, foreign[1]]):
        assert "job" not in event
        break
    told = await told_of(rest, token_id, most=3)
    assert told[2:] == [("WatchEvents", foreign[1], "denied", "JOB_NOT_FOUND", 1)]


async def test_who_shows_a_revoked_token_is_told_by_its_id(door: Door, rest: RestDoor) -> None:
    """Its secret was right. Who shows another secret under that id is nobody."""
    token_id, token = await issue(rest, scopes=["jobs:read"])
    await post(rest, f"/v1/tokens/{token_id}/revoke", {})
    for credentials in (f"{token[:-3]}AAA", token):
        with pytest.raises(Refused) as refused:
            await with_token(door, credentials).call("ListJobs")
        assert refused.value.error_code == "E_AUTH_INVALID"
    assert await told_of(rest, token_id, most=1) == [("ListJobs", "", "denied", "AUTH_INVALID", 1)]
