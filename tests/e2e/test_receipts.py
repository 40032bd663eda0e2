"""Receipts of every end, through both doors, as those verify them who trust nobody: with programs not all ours."""

import asyncio
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import grpc
import jobledger
import jsonschema
import pytest
from jobledger.v1.receipt_service_pb2 import GetConsistencyProofRequest, GetInclusionProofRequest
from jobledger.v1.receipt_service_pb2_grpc import ReceiptServiceStub
from support.doors import Door, GrpcDoor, Refused, RestDoor, refused
from support.eventually import eventually
from support.running import RunningServer, launch, output_file, run_cli, start

ROOT = Path(__file__).parents[2]
STANDALONE = ROOT / "clients" / "verify_receipt.py"
PAGE = ROOT / "server" / "docs" / "receipts.md"
SCHEMA = json.loads((Path(jobledger.__file__).parent / "receipt-v1.schema.json").read_text())
NOBODY = "job_00000000000000000000000000"
FORMS = {"json": "receipt.json", "dsse": "receipt.dsse.json", "proof": "receipt.tlog-proof"}


class End(NamedTuple):
    """How a job ends: its command, what else its specification has, and what its receipt says."""

    script: str
    spec: Mapping[str, Any]
    status: str
    error_code: str | None


# What supervises it is gone once it is known to run.
LOSE_ITSELF = """
until [ -e "$JOBLEDGER_JOB_DIR/go" ]; do sleep 0.05; done
rm -rf "{control}"/"$JOBLEDGER_JOB_ID".*
exec sleep 600
"""
ENDS = {
    "completed": End("echo out > $JOBLEDGER_OUTPUT_DIR/out.txt", {}, "completed", None),
    "failed": End("echo part > $JOBLEDGER_OUTPUT_DIR/part.txt; exit 7", {}, "failed", "E_JOB_EXIT_NONZERO"),
    "timed out": End("exec sleep 600", {"timeout": "0.3s", "grace_period": "1s"}, "failed", "E_JOB_TIMED_OUT"),
    "killed": End("kill -9 $$", {}, "failed", "E_JOB_KILLED"),
    "lost": End(LOSE_ITSELF, {}, "failed", "E_JOB_LOST"),
    "cancelled": End("exec sleep 600", {"grace_period": "1s"}, "cancelled", None),
}


async def ended(door: Door, server: RunningServer, end: End) -> str:
    script = end.script.replace("{control}", str(server.data_dir / "control"))
    job_id = str((await door.create("sh", "-c", script, **end.spec))["job_id"])
    if end.status == "cancelled" or end.script == LOSE_ITSELF:
        await eventually(lambda: door.get(job_id), until=lambda job: job["state"] == "running")
    if end.status == "cancelled":
        await door.cancel(job_id)
    elif end.script == LOSE_ITSELF:
        (server.data_dir / "jobs" / job_id / "go").touch()
    job = await door.ended(job_id)
    assert (job["state"], job.get("error_code") or None) == (end.status, end.error_code)
    return job_id


async def fetched(door: Door, job_id: str, place: Path) -> None:
    """What a verifier needs of the receipt, as files."""
    place.mkdir(exist_ok=True)
    for form, name in FORMS.items():
        (place / name).write_bytes((await door.receipt(job_id, form))[0])


async def ran(place: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([*map(str, command)], cwd=place, capture_output=True, text=True, timeout=60, check=False)

    return await asyncio.to_thread(run)


@pytest.mark.parametrize("name", list(ENDS))
async def test_the_receipt_of_every_end_verifies(
    rest: RestDoor, server: RunningServer, tmp_path: Path, name: str
) -> None:
    end, keys = ENDS[name], server.data_dir / "keys"
    job_id = await ended(rest, server, end)
    async with grpc.aio.insecure_channel(server.target) as channel:
        await fetched(GrpcDoor(channel, server.token), job_id, tmp_path)
    for form, kept in FORMS.items():
        assert (await rest.receipt(job_id, form))[0] == (tmp_path / kept).read_bytes()
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    jsonschema.validate(receipt, SCHEMA)
    assert (receipt["summary"]["status"], receipt["summary"]["error_code"]) == (end.status, end.error_code)
    outputs = server.data_dir / "jobs" / job_id / "output"
    files = ["--artifacts", str(outputs)] if outputs.exists() else []
    ours = await asyncio.to_thread(
        lambda: run_cli(
            server,
            *("receipt", "verify", str(tmp_path / "receipt.dsse.json"), "--job", job_id, *files),
            *("--proof", str(tmp_path / "receipt.tlog-proof")),
        )
    )
    assert ours.returncode == 0, ours.stdout + ours.stderr
    log = ["--proof", "receipt.tlog-proof", "--log-key", str(keys / "log.vkey")]
    alone = (STANDALONE, "receipt.dsse.json", keys / "keys.json")
    theirs = await ran(tmp_path, sys.executable, "-I", "-S", *alone, *log, *files)
    assert (theirs.returncode, theirs.stdout) == (0, f"valid: {job_id} {end.status}\n"), theirs.stderr
    (tmp_path / "keys.json").write_bytes((keys / "keys.json").read_bytes())
    (recipe,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert (await ran(tmp_path, "sh", "-c", recipe)).returncode == 0


async def test_a_verifier_that_keeps_a_checkpoint_sees_that_the_log_is_the_same(
    server: RunningServer, tmp_path: Path
) -> None:
    """As the page says it, with the CLI alone."""

    def cli(*arguments: str | Path) -> None:
        done = run_cli(server, "receipt", *map(str, arguments))
        assert done.returncode == 0, done.stdout + done.stderr

    paths = [tmp_path / name for name in ("checkpoint.txt", "receipt.dsse.json", "receipt.tlog-proof", "consistency")]
    kept, envelope, proof, consistency = paths
    async with grpc.aio.insecure_channel(server.target) as channel:
        door = GrpcDoor(channel, server.token)
        await door.ended((await door.create("true"))["job_id"])
        await asyncio.to_thread(cli, "checkpoint", "-o", kept)
        job_id = (await door.create("true"))["job_id"]
        await door.ended(job_id)
        await asyncio.to_thread(cli, "show", job_id, "--format", "dsse", "-o", envelope)
        await asyncio.to_thread(cli, "show", job_id, "--format", "proof", "-o", proof)
        # The log goes on between one call and the next.
        await door.ended((await door.create("true"))["job_id"])
        await asyncio.to_thread(cli, "consistency", "--checkpoint", kept, "--proof", proof, "-o", consistency)
    log = ("--proof", proof, "--checkpoint", kept, "--consistency", consistency)
    await asyncio.to_thread(cli, "verify", envelope, *log)


async def test_a_stranger_needs_one_address_for_all_keys_and_takes_proofs_as_they_come(
    server: RunningServer, tmp_path: Path
) -> None:
    """Keys, proof and checkpoint are stored as the REST API answers them: the script takes the proof as text alone."""
    names = {"keys.json": "receipts/keys", "checkpoint.json": "receipts/checkpoint"}
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {server.token}"}) as session:
        door = RestDoor(session, server.url, server.token)
        job_id = (await door.create("true"))["job_id"]
        await door.ended(job_id)
        (tmp_path / "receipt.dsse.json").write_bytes((await door.receipt(job_id, "dsse"))[0])
        (tmp_path / "receipt.tlog-proof").write_bytes((await door.receipt(job_id, "proof"))[0])
        for name, path in {**names, "proof.json": f"receipts/inclusion/{job_id}"}.items():
            async with session.get(f"{server.url}/v1/{path}") as answer:
                (tmp_path / name).write_bytes(await answer.read())
    proof = ("receipt.dsse.json", "keys.json", "--proof", "receipt.tlog-proof")
    alone = await ran(tmp_path, sys.executable, "-I", "-S", STANDALONE, *proof)
    assert alone.returncode == 0, alone.stderr
    paths = [f"--{name}={tmp_path / name}.json" for name in ("keys", "proof", "checkpoint")]
    ours = await asyncio.to_thread(
        lambda: run_cli(server, "receipt", "verify", f"{tmp_path}/receipt.dsse.json", *paths)
    )
    assert "log_inclusion" in ours.stdout
    assert ours.returncode in (0, 2), ours.stdout + ours.stderr


async def test_sizes_that_the_log_has_not_are_refused(server: RunningServer) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub, metadata = ReceiptServiceStub(channel), (("authorization", f"Bearer {server.token}"),)
        for field, sizes in (
            ("old_size", {"old_size": 10_000}),
            ("new_size", {"old_size": 0, "new_size": 10_000}),
            ("old_size", {"old_size": 1, "new_size": 0}),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetConsistencyProof(GetConsistencyProofRequest(**sizes), metadata=metadata)
            error = refused(caught.value)
            assert (error.error_code, error.details["fields"][0]["field"]) == ("E_VALIDATION", field)


@pytest.mark.parametrize("form", ["json", "dsse", "proof"])
async def test_there_is_no_receipt_of_a_running_job_and_of_none(door: Door, form: str) -> None:
    job_id = (await door.create("sleep", "600"))["job_id"]
    with pytest.raises(Refused) as caught:
        await door.receipt(job_id, form)
    assert caught.value.error_code == "E_RECEIPT_NOT_READY"
    await door.cancel(job_id, grace_period="1s")
    for unknown in (NOBODY, "receipt", "job_'; DROP TABLE receipts", "x" * 5000):
        with pytest.raises(Refused) as caught:
            await door.receipt(unknown, form)
        assert caught.value.error_code == "E_JOB_NOT_FOUND"
    await door.ended(job_id)


async def test_who_may_not_see_a_job_learns_nothing_of_its_receipt_and_proof(
    server: RunningServer, tmp_path: Path
) -> None:
    """The very answer of a job that is not there."""
    token = tmp_path / "token"
    options = ("--name", "elsewhere", "--scope", "jobs:read", "--workspace", "elsewhere", "--output", str(token))
    made = await asyncio.to_thread(lambda: run_cli(server, "token", "create", *options))
    assert made.returncode == 0, made.stderr
    async with grpc.aio.insecure_channel(server.target) as channel:
        owner, stranger = GrpcDoor(channel, server.token), GrpcDoor(channel, token.read_text().strip())
        job_id = (await owner.create("true"))["job_id"]
        await owner.ended(job_id)
        proofs = ReceiptServiceStub(channel)
        for form in ("json", "dsse", "proof"):
            answers = []
            for asked in (job_id, NOBODY):
                with pytest.raises(Refused) as caught:
                    await stranger.receipt(asked, form)
                answers.append((caught.value.error_code, caught.value.message))
            assert answers[0] == answers[1]
        for asked in (job_id, NOBODY):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await proofs.GetInclusionProof(GetInclusionProofRequest(job_id=asked), metadata=stranger.metadata)
            assert refused(failed.value).error_code == "E_JOB_NOT_FOUND"


# --- keys -----------------------------------------------------------------------------------------------------------


def statuses(server: RunningServer, envelope: Path) -> tuple[int, set[str]]:
    done = run_cli(server, "receipt", "verify", str(envelope), "--json")
    document = json.loads(done.stdout)
    return done.returncode, {check["name"] for check in document["checks"] if check["status"] == "failed"}


async def one_receipt(server: RunningServer, place: Path) -> Path:
    async with grpc.aio.insecure_channel(server.target) as channel:
        door = GrpcDoor(channel, server.token)
        job_id = (await door.create("true"))["job_id"]
        await door.ended(job_id)
        await fetched(door, job_id, place)
    return place / "receipt.dsse.json"


async def test_keys_are_rotated_and_revoked_while_the_server_is_stopped(tmp_path: Path) -> None:
    server = start(tmp_path / "data")
    first = await one_receipt(server, tmp_path / "first")
    busy = run_cli(server, "keys", "rotate", afresh=True)
    assert busy.returncode == 2
    assert f"process {server.process.pid}" in busy.stderr
    server.stop()
    rotated = json.loads(run_cli(server, "keys", "rotate", "--json").stdout)["keys"]
    assert len(rotated) == 2
    server = start(server.data_dir)
    second = await one_receipt(server, tmp_path / "second")
    server.stop()
    assert statuses(server, first) == statuses(server, second) == (0, set())
    assert run_cli(server, "keys", "revoke", rotated[1]["key_id"]).returncode == 0
    assert statuses(server, first) == (1, {"key_not_revoked"})
    assert statuses(server, second) == (0, set())
    listed = run_cli(server, "keys", "list").stdout.splitlines()
    assert [line.split()[1] for line in listed[:2]] == ["signs", "revoked"]
    assert listed[2].startswith("log jobledger.dev/log/")


async def test_a_server_whose_log_key_is_lost_does_not_start_until_a_new_log_is_begun(tmp_path: Path) -> None:
    server = start(tmp_path / "data")
    await one_receipt(server, tmp_path / "first")
    server.stop()
    for name in ("log.key", "log.vkey"):
        (server.data_dir / "keys" / name).unlink()
    assert launch(server.data_dir).wait(20) != 0
    told = output_file(server.data_dir).read_text()
    assert "log.key is gone" in told
    assert "jobledger keys new-log" in told
    begun = json.loads(run_cli(server, "keys", "new-log", "--json").stdout)
    assert begun["log_key"] == (server.data_dir / "keys" / "log.vkey").read_text().strip()
    assert len(begun["keys"]) == 1


async def test_a_command_signs_in_place_of_a_key_of_the_servers(tmp_path: Path) -> None:
    """With openssl, as the page has it."""
    private, public, script = tmp_path / "signer.key", tmp_path / "signer.pem", tmp_path / "sign.sh"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    (example,) = re.findall(r"\n    #!/bin/sh\n(?:    .*\n)+", PAGE.read_text())
    script.write_text(textwrap.dedent(example[1:]).replace("/etc/jobledger/receipts.key", str(private)))
    script.chmod(0o700)
    config = tmp_path / "config.toml"
    config.write_text(f'signer = "{script}"\nsigner_key = "{public}"\n')
    server = start(tmp_path / "data", "--config", str(config))
    envelope = await one_receipt(server, tmp_path / "receipt")
    server.stop()
    assert statuses(server, envelope) == (0, set())
    assert not (server.data_dir / "keys" / "receipt.key").exists()
    config.write_text('signer = "no-such-program"\nsigner_key = "nowhere"\n')
    assert launch(server.data_dir, "--config", str(config)).wait(20) != 0
    assert "names no program" in output_file(server.data_dir).read_text()
