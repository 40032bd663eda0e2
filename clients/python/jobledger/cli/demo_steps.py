"""The demonstration, step by step, through the public SDK. Each step checks what it shows."""

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, Final

import jobledger
from jobledger import receipts
from jobledger.cli import output
from jobledger.cli.artifacts import row as artifact_row
from jobledger.cli.demo_server import DemoError, DemoServer
from jobledger.cli.events import detail
from jobledger.cli.log_lines import show_entries
from jobledger.cli.ls import show as show_jobs
from jobledger.client import Client
from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_pb2 import Job, JobState

JOB: Final = Path(__file__).with_name("demo_job.py")
LABELS: Final = {"demo": "yes"}
# A process with a child: both wait for ten minutes, unless they are cancelled.
LONG_JOB: Final = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
STEP_SECONDS: Final = 60.0


async def show_all(server: DemoServer) -> None:
    """Runs every step.

    Raises:
        DemoError: something is not as it should be.
        JobledgerError: a call failed.
    """
    token = server.token_file.read_text("utf-8").strip()
    try:
        async with asyncio.timeout(STEP_SECONDS), Client.connect(server.grpc, token=token) as client:
            status = await client.status()
            _title(f"{status.name} {status.version} is up: gRPC {server.grpc}, REST {server.http}")
            job = await _run_a_job(client)
            await _read_its_log(client, job)
            await _fetch_and_verify(client, job)
            await _cancel_another(client, server, token)
    except TimeoutError:
        raise DemoError(f"it was not done after {STEP_SECONDS:.0f} s") from None


async def _run_a_job(client: Client) -> Job:
    _title("A job reads the Python sources of this machine; its events arrive over gRPC")
    before = (await client.status()).last_sequence_number
    job = await client.submit([sys.executable, "-I", str(JOB)], labels={**LABELS, "name": "sources"})
    print(f"  {job.job_id}")
    states = await _watch_to_the_end(client, job.job_id, before)
    _check(states == ["queued", "running", "completed"], f"the job went through {' -> '.join(states)}")
    _title("The list of jobs")
    show_jobs((await client.list(labels=LABELS)).jobs)
    return await client.get(job.job_id)


async def _watch_to_the_end(client: Client, job_id: str, after: int) -> list[str]:
    """Prints a job's events until it is terminal. Returns the states that it went through."""
    states: list[str] = []
    tenth = -1
    async with contextlib.aclosing(client.events(resume_from=after, job_id=[job_id])) as events:
        async for event in events:
            if event.event_type == "job.progress" and event.progress.progress_percent // 10 > tenth:
                tenth = int(event.progress.progress_percent // 10)
                print(f"  {detail(event)}")
            if event.event_type == "job.state_changed":
                states.append(_new_state(event))
                print(f"  {detail(event)}")
                if jobledger.is_terminal(event.state_changed.new_state):
                    break
    return states


async def _read_its_log(client: Client, job: Job) -> None:
    everything = await client.logs(job.job_id, limit=1)
    found = await client.logs(job.job_id, level=["warn", "error"], limit=5)
    _title(f"Its log has {everything.total} entries, {found.total} of them of level warn or error; the first of those")
    _check(everything.total > 0, "the job's log is empty")
    for entry in found.logs:
        print("  ", end="")
        show_entries([entry], as_json=False)


async def _fetch_and_verify(client: Client, job: Job) -> None:
    _title("Its artifacts, fetched and compared with their hashes")
    found = await client.artifacts(job.job_id)
    _check([item.path for item in found] == ["chart.svg", "packages.csv"], "the artifacts are not those expected")
    with tempfile.TemporaryDirectory() as directory:
        for artifact in found:
            path = await client.download_artifact(job.job_id, artifact, Path(directory) / artifact.path)
            _check(hashlib.sha256(path.read_bytes()).hexdigest() == artifact.sha256, f"{artifact.path} is damaged")
        output.table(("PATH", "SIZE", "STATUS", "TYPE", "SHA-256"), [artifact_row(item) for item in found], colour=2)
        _title("Its receipt: signed, and checked offline with the server's public keys")
        envelope = await client.receipt(job.job_id, format="dsse")
        keys = {key.key_id: key.public_key_pem.encode() for key in await client.signing_keys()}
        report = receipts.verify(envelope, keys=keys, artifacts=Path(directory), job_id=job.job_id)
    for check in report.checks:
        print(f"  {check.status:8} {check.name}: {check.detail}")
    _check(report.exit_code == receipts.VALID, "the receipt is not valid")


async def _cancel_another(client: Client, server: DemoServer, token: str) -> None:
    _title("A job of ten minutes, with a child process, is cancelled")
    before = (await client.status()).last_sequence_number
    job = await client.submit([sys.executable, "-c", LONG_JOB], labels={**LABELS, "name": "long"})
    async with contextlib.aclosing(client.tail_logs(job.job_id)) as log:
        child = int((await anext(log)).message)
    await _look_through_rest(server, token, job.job_id)
    answer = await client.cancel(job.job_id, reason="the demonstration is over")
    print(f"  {answer.message}")
    states = await _watch_to_the_end(client, job.job_id, before)
    _check(states == ["queued", "running", "cancelling", "cancelled"], f"it went through {' -> '.join(states)}")
    _check(not _is_alive(child), f"its child process {child} is still alive")
    print(f"  nothing is left of it: its child, process {child}, is gone too")


async def _look_through_rest(server: DemoServer, token: str, job_id: str) -> None:
    job = await asyncio.to_thread(_get, f"{server.http}/v1/jobs/{job_id}", token)
    live = await asyncio.to_thread(_get, f"{server.http}/gateway/jobs", token)
    _check(job["state"] == "running", f"REST says that the job is {job['state']}")
    _check(job_id in [item["job_id"] for item in live["jobs"]], "the dashboard's list lacks the running job")
    print(f"  GET /v1/jobs/{job_id}: {job['state']}")
    print(f"  GET /gateway/jobs: {live['total_jobs']} live, first {json.dumps(live['jobs'][0])}")


def _get(url: str, token: str) -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - our own server
    # What the environment says of proxies is not about a server on this machine.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=10) as answer:
            return json.load(answer)
    except OSError as error:
        raise DemoError(f"GET {url}: {error}") from error


def _new_state(event: Event) -> str:
    return jobledger.short_name(JobState, event.state_changed.new_state)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoError(otherwise)


def _title(text: str) -> None:
    print(f"\n{text}", flush=True)
