"""A server with TLS that asks for certificates, as a user runs it: both ports, both sockets, the CLI, a renewal."""

import json
import os
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from e2e.test_tools import printed_lines_work
from support import forking
from support.certificates import Authority, Certificate
from support.doors import RestDoor
from support.eventually import eventually
from support.running import RunningServer, output_file, run_cli, start

WORKER = "spiffe://acme.example/worker"
# Not one of the names for loopback that need no TLS, yet of this machine.
HOST = "127.0.0.2"
AUTHORITY, CLIENTS = Authority.make(), Authority.make("Clients")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    AUTHORITY.server(HOST, "jobs.example.org").write(directory, "server")
    AUTHORITY.write(directory, "ca")
    CLIENTS.write(directory, "clients")
    CLIENTS.client(WORKER).write(directory, "worker")
    peers = f'[peers."{WORKER}"]\nscopes = ["jobs:read", "jobs:create", "jobs:exec"]\nworkspaces = ["builds"]\n'
    (directory / "jobledger.toml").write_text(peers)
    return directory


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[RunningServer]:
    running = start(
        tmp_path_factory.mktemp("jobledger") / "data",
        *("--host", HOST, "--tls-certificate", str(files / "server.pem"), "--tls-key", str(files / "server.key")),
        *("--tls-client-ca", str(files / "clients.pem"), "--config", str(files / "jobledger.toml")),
    )
    yield running
    running.stop()


def as_worker(files: Path) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cafile=files / "ca.pem")
    context.load_cert_chain(files / "worker.pem", files / "worker.key")
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))


def remote_cli(files: Path, *arguments: str, **also: str) -> subprocess.CompletedProcess[str]:
    """The CLI of somebody on another machine, who has a certificate and nothing else."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JOBLEDGER_")}
    environment |= {
        "JOBLEDGER_DATA_DIR": str(files / "nothing"),
        "JOBLEDGER_CA_FILE": str(files / "ca.pem"),
        "JOBLEDGER_CERT_FILE": str(files / "worker.pem"),
        "JOBLEDGER_KEY_FILE": str(files / "worker.key"),
        **also,
    }
    return forking.run(arguments, environment)


async def test_a_certificate_is_an_identity_from_the_wire_to_the_receipt(
    tls_server: RunningServer, files: Path
) -> None:
    async with as_worker(files) as session:
        door = RestDoor(session, tls_server.url, token=None)
        job_id = (await door.create("echo", "over TLS"))["job_id"]
        job = await door.ended(job_id)
        assert (job["created_by"], job["workspace_id"], job["state"]) == (f"cert:{WORKER}", "builds", "completed")
        assert json.loads((await door.receipt(job_id))[0])["requested_by"] == f"cert:{WORKER}"
        async with session.get(f"{tls_server.url}/v1/engine/whoami") as told:
            assert (await told.json())["scopes"] == ["jobs:create", "jobs:exec", "jobs:read"]
        async with session.post(f"{tls_server.url}/v1/tokens", json={"name": "more", "scopes": ["admin"]}) as told:
            assert told.status == 403


def test_the_cli_finds_a_server_elsewhere_with_a_certificate_alone(tls_server: RunningServer, files: Path) -> None:
    listed = remote_cli(files, "ls", "--json", "--target", tls_server.target)
    assert listed.returncode == 0, listed.stderr
    (files / "ca.pem").rename(files / "ca.away")
    Authority.make().write(files, "ca")
    refused = remote_cli(files, "ls", "--target", tls_server.target)
    (files / "ca.away").rename(files / "ca.pem")
    assert refused.returncode == 3, refused.stdout


def test_the_lines_that_up_prints_work_when_pasted(tls_server: RunningServer) -> None:
    printed_lines_work(tls_server)


def test_a_client_without_tls_is_told_of_it(tls_server: RunningServer, files: Path) -> None:
    none = {f"JOBLEDGER_{name}_FILE": "" for name in ("CA", "CERT", "KEY")}
    refused = remote_cli(files, "ls", "--target", tls_server.target, JOBLEDGER_TOKEN="t", **none)
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert "--ca-file" in refused.stderr


async def test_both_sockets_serve_its_own_user_with_a_token(tls_server: RunningServer) -> None:
    assert run_cli(tls_server, "status").returncode == 0
    path = tls_server.endpoints["http_unix"]
    for sent, status in ((tls_server.token, 200), (None, 401)):
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
            headers = {"Authorization": f"Bearer {sent}"} if sent else {}
            async with session.get("http://localhost/v1/jobs", headers=headers) as told:
                assert told.status == status


async def test_a_renewal_on_sighup_reaches_connections_and_those_who_look_for_the_server(
    tls_server: RunningServer, files: Path
) -> None:
    announced = tls_server.data_dir / "endpoints.json"
    before = json.loads(announced.read_text())
    assert before["cert_sha256"] == _sha256_of(files / "server.pem")

    async def pinned() -> Any:
        return json.loads(announced.read_text())["cert_sha256"]

    async with as_worker(files) as session:
        door = RestDoor(session, tls_server.url, token=None)
        await door.call("ListJobs")
        new = AUTHORITY.server(HOST).write(files, "server")
        tls_server.process.send_signal(signal.SIGHUP)
        await eventually(pinned, until=new.sha256.__eq__)
        await door.call("ListJobs")
    assert json.loads(announced.read_text()) == {**before, "cert_sha256": new.sha256}
    for port in (tls_server.target, tls_server.url.removeprefix("https://")):
        host, _, number = port.rpartition(":")
        assert Certificate.sha256_of(ssl.get_server_certificate((host, int(number)), timeout=10)) == new.sha256
    (files / "server.key").chmod(0o644)
    tls_server.process.send_signal(signal.SIGHUP)

    async def told() -> str:
        return output_file(tls_server.data_dir).read_text()

    await eventually(told, until=lambda text: "server.key is open to other users" in text)
    (files / "server.key").chmod(0o600)
    assert await pinned() == new.sha256
    assert remote_cli(files, "ls", "--target", tls_server.target).returncode == 0
    assert tls_server.process.poll() is None


def _sha256_of(path: Path) -> str:
    return Certificate.sha256_of(path.read_text())
