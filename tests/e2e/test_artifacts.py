"""Artifacts from the job that leaves them to the client that has them: attacks, parts, cuts, damage, and size."""

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.doors import Door, Refused, RestDoor
from support.eventually import eventually
from support.repositories import Repository
from support.running import RunningServer, run_cli

MIB = 1024 * 1024
BIG = 200 * MIB
LEAVES_MUCH = f"""
import os
out = os.environ["JOBLEDGER_OUTPUT_DIR"]
with open(out + "/big", "wb") as file:
    for number in range({BIG // MIB}):
        file.write(number.to_bytes(4, "big") * {MIB // 4})
"""
ATTACKS = r"""
import json, os, socket, sys
token, out = sys.argv[1], os.environ["JOBLEDGER_OUTPUT_DIR"]
os.chdir(out)
def leave(name):
    with open(name, "w") as file:
        file.write("x")
leave("fine")
for name in ("%2e%2e%2fx", "new\nline", "right\u202eleft", b"latin-\xe9", "back\\slash"):
    leave(name)
os.symlink(token, "symbolic")
os.link(token, "hard")
os.symlink("..", "up")
os.symlink("/dev/zero", "endless")
os.mkfifo("pipe")
socket.socket(socket.AF_UNIX).bind("socket")
inner = os.open(".", os.O_RDONLY)
for _ in range(25):
    os.mkdir("d" * 200, dir_fd=inner)
    inner = os.open("d" * 200, os.O_RDONLY, dir_fd=inner)
os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=inner))
with open(os.environ["JOBLEDGER_CONTROL"], "a") as control:
    for path in ("../x", "%2e%2e%2fx", "declared%2fx", "nul\0", "return\r", "left\u202eright", "y" * 5000, token):
        control.write(json.dumps({"type": "artifact", "path": path}) + "\n")
"""


def content_of(number: int) -> bytes:
    return number.to_bytes(4, "big") * (MIB // 4)


async def left_by(door: Door, *command: str) -> Mapping[str, Any]:
    """The ended job that ran the command."""
    ended = await door.ended((await door.create(*command))["job_id"])
    assert ended["state"] == "completed", ended
    return ended


def place_of(rest: RestDoor, job: Mapping[str, Any], index: int = 0) -> str:
    return f"{rest.url}/v1/jobs/{job['job_id']}/artifacts/{job['artifacts'][index]['id']}/content"


async def read_on(response: aiohttp.ClientResponse, received: bytearray) -> None:
    async for chunk in response.content.iter_any():
        received += chunk


def blob_of(server: RunningServer, sha256: str) -> Path:
    return server.data_dir / "blobs" / sha256[:2] / sha256[2:]


async def test_what_must_not_be_an_artifact_is_refused_and_named(door: Door, server: RunningServer) -> None:
    token_file = str(server.endpoints["token_file"])
    job = await left_by(door, sys.executable, "-c", ATTACKS, token_file)
    Path(server.data_dir / "jobs" / job["job_id"] / "output" / "hard").unlink()
    assert [it["path"] for it in job["artifacts"]] == ["fine"]
    stored, _ = await door.receipt(job["job_id"])
    receipt = json.loads(stored)
    assert [it["path"] for it in receipt["outputs"]] == ["fine"]
    refused = {it["path"]: it["reason"] for it in receipt["refused"]}
    deep = next(path for path in refused if path.startswith("ddd"))
    assert "longer than 1024" in refused.pop(deep)
    said = {
        path: refused.pop(path).removeprefix("declared, and its ") for path in [*refused] if "decl" in refused[path]
    }
    assert said == {
        "../x": "path leads out of output/, or names no file",
        token_file: "path leads out of output/, or names no file",
        "declared%2fx": "name, percent-decoded, would lead elsewhere",
        "nul\\x00": "name has characters that no file system should see",
        "return\\r": "name has characters that no file system should see",
        "left\\u202eright": "name has characters that no file system should see",
        f"{'y' * 256}...": "path is longer than 1024 characters",
    }
    assert refused == {
        "%2e%2e%2fx": "its name, percent-decoded, would lead elsewhere",
        "back\\slash": "its name has characters that no file system should see",
        "endless": "a symbolic link",
        "hard": "has more than one hard link",
        "latin-\\xe9": "its name has characters that no file system should see",
        "new\nline": "its name has characters that no file system should see",
        "pipe": "not a regular file",
        "right\u202eleft": "its name has characters that no file system should see",
        "socket": "not a regular file",
        "symbolic": "a symbolic link",
        "up": "a symbolic link",
    }


@pytest.mark.parametrize(
    ("header", "status", "body", "content_range"),
    [
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=7-100", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-100", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=5-2", 200, b"0123456789", None),
        ("bytes=0-0,5-9", 200, b"0123456789", None),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=10-20", 416, None, "bytes */10"),
        ("bytes=99999999999999999999999-", 416, None, "bytes */10"),
    ],
)
async def test_ranges_of_ten_bytes(
    rest: RestDoor, header: str, status: int, body: bytes | None, content_range: str | None
) -> None:
    job = await left_by(rest, "sh", "-c", "printf 0123456789 > $JOBLEDGER_OUTPUT_DIR/ten")
    async with rest.session.get(place_of(rest, job), headers={**rest.headers, "Range": header}) as response:
        got = await response.read()
        assert (response.status, response.headers.get("Content-Range")) == (status, content_range)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        if body is None:
            refused = json.loads(got)
            assert (refused["error_code"], refused["details"]) == ("E_RANGE_NOT_SATISFIABLE", {"size": 10})
        else:
            assert got == body
            assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"


@pytest.mark.parametrize(
    ("header", "status"), [(None, 200), ("bytes=0-", 200), ("bytes=-5", 200), ("bytes=0-0", 416), ("bytes=1-", 416)]
)
async def test_an_empty_artifact_has_no_parts(rest: RestDoor, header: str | None, status: int) -> None:
    job = await left_by(rest, "sh", "-c", ": > $JOBLEDGER_OUTPUT_DIR/empty")
    headers = {**rest.headers, **({"Range": header} if header else {})}
    async with rest.session.get(place_of(rest, job), headers=headers) as response:
        assert response.status == status
        if status == 200:
            assert (await response.read(), response.headers["Content-Length"]) == (b"", "0")
            assert response.headers["ETag"] == f'"{hashlib.sha256().hexdigest()}"'


async def test_a_name_in_any_script_is_saved_under_it(rest: RestDoor) -> None:
    job = await left_by(rest, "sh", "-c", "printf x > \"$JOBLEDGER_OUTPUT_DIR/отчёт; a='b'.html\"")
    async with rest.session.head(place_of(rest, job), headers=rest.headers) as response:
        disposition = response.headers["Content-Disposition"]
    assert disposition.startswith("attachment; filename=\"_____; a='b'.html\"; filename*=UTF-8''%D0%BE")


async def test_two_hundred_megabytes_are_collected_and_fetched_in_little_memory_and_go_on_after_a_cut(
    rest: RestDoor, server: RunningServer
) -> None:
    await left_by(rest, "true")
    before = server.resident_megabytes()
    job = await left_by(rest, sys.executable, "-c", LEAVES_MUCH)
    [artifact] = job["artifacts"]
    digest, received = hashlib.sha256(), 0
    async with (
        aiohttp.ClientSession() as cut_off,
        cut_off.get(place_of(rest, job), headers=rest.headers) as response,
    ):
        etag = response.headers["ETag"]
        async for chunk in response.content.iter_any():
            digest.update(chunk)
            received += len(chunk)
            if received > BIG // 3:
                break
        response.close()
    headers = {**rest.headers, "Range": f"bytes={received}-", "If-Range": etag}
    async with rest.session.get(place_of(rest, job), headers=headers) as response:
        assert response.status == 206
        async for chunk in response.content.iter_any():
            digest.update(chunk)
            received += len(chunk)
    assert (received, digest.hexdigest()) == (BIG, artifact["sha256"])
    assert server.resident_megabytes() - before < 80


async def test_bytes_that_change_during_a_download_are_not_sent(rest: RestDoor, server: RunningServer) -> None:
    """The connection breaks before them, and whoever asks next is told why."""
    job = await left_by(rest, sys.executable, "-c", LEAVES_MUCH.replace("/big", "/other").replace('"wb"', '"xb"'))
    [artifact] = job["artifacts"]
    intact = bytearray()
    async with rest.session.get(place_of(rest, job), headers=rest.headers) as response:
        intact += await response.content.readexactly(MIB)
        with blob_of(server, artifact["sha256"]).open("r+b") as blob:
            blob.seek(BIG - 10)
            blob.write(b"changed!")
        with pytest.raises(aiohttp.ClientError):
            await read_on(response, intact)
    assert intact == b"".join(content_of(number) for number in range(len(intact) // MIB + 1))[: len(intact)]
    assert len(intact) < BIG
    with pytest.raises(Refused) as refused:
        await rest.download(job["job_id"], artifact["id"])
    assert (refused.value.status, refused.value.error_code) == (409, "E_ARTIFACT_QUARANTINED")
    assert (await rest.get(job["job_id"]))["artifacts"][0]["status"] == "quarantined"


async def test_an_artifact_is_the_bytes_of_its_receipt_or_lost(door: Door, server: RunningServer) -> None:
    """What is left of the job may change its output; what has the store may damage it. Neither is sent."""
    content = f"kept for {door.name}".encode()
    job = await left_by(door, "sh", "-c", 'printf %s "$1" > "$JOBLEDGER_OUTPUT_DIR/a"', "sh", content.decode())
    [artifact], job_id = job["artifacts"], job["job_id"]
    [output] = json.loads((await door.receipt(job_id))[0])["outputs"]
    (server.data_dir / "jobs" / job_id / "output" / "a").write_bytes(content.upper())
    served = await door.download(job_id, artifact["id"])
    assert (served, hashlib.sha256(served).hexdigest()) == (content, output["sha256"])
    blob = blob_of(server, output["sha256"])
    blob.chmod(0o600)
    blob.write_bytes(content.upper())
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await door.download(job_id, artifact["id"])
        assert refused.value.error_code == "E_ARTIFACT_QUARANTINED"
        assert refused.value.status == {"grpc": "DATA_LOSS", "rest": 409}[door.name]


async def test_a_thousand_files_are_all_there_soon_after_the_end(door: Door) -> None:
    script = "import os\nfor n in range(1000): open(os.environ['JOBLEDGER_OUTPUT_DIR'] + f'/{n:04}', 'w').write(str(n))"
    job = await left_by(door, sys.executable, "-c", script)
    assert [it["path"] for it in job["artifacts"]] == [f"{number:04}" for number in range(1000)]
    stored, _ = await door.receipt(job["job_id"], "dsse")
    assert json.loads(stored)["payloadType"] == "application/vnd.in-toto+json"
    assert await door.download(job["job_id"], job["artifacts"][987]["id"]) == b"987"


async def test_what_a_deleted_job_left_goes_and_what_another_left_too_stays(
    rest: RestDoor, server: RunningServer
) -> None:
    """Bytes are kept once; a receipt outlives them, and says what they were."""
    script = "printf shared > $JOBLEDGER_OUTPUT_DIR/s; printf %s $1 > $JOBLEDGER_OUTPUT_DIR/own"
    jobs = [await left_by(rest, "sh", "-c", script, "sh", word) for word in ("first", "second")]
    own, shared = ({it["path"]: it["sha256"] for it in jobs[0]["artifacts"]}[path] for path in ("own", "s"))
    await rest.call("DeleteJob", job_id=jobs[0]["job_id"])
    await rest.call("CollectGarbage")
    await eventually(lambda: gone(blob_of(server, own)))
    assert blob_of(server, shared).read_bytes() == b"shared"
    assert await rest.download(jobs[1]["job_id"], jobs[1]["artifacts"][1]["id"]) == b"shared"
    receipt = json.loads((await rest.receipt(jobs[0]["job_id"]))[0])
    assert {it["path"]: it["sha256"] for it in receipt["outputs"]} == {"own": own, "s": shared}


async def gone(path: Path) -> bool:
    return not path.exists()


async def test_the_command_line_fetches_without_overwriting(
    rest: RestDoor, server: RunningServer, tmp_path: Path
) -> None:
    job = await left_by(rest, "sh", "-c", "mkdir $JOBLEDGER_OUTPUT_DIR/d; printf one > $JOBLEDGER_OUTPUT_DIR/d/f")
    assert run_cli(server, "artifacts", "get", job["job_id"], "-o", str(tmp_path)).returncode == 0
    file = tmp_path / "d" / "f"
    assert file.read_text() == "one"
    assert run_cli(server, "artifacts", "get", job["job_id"], "-o", str(tmp_path)).returncode == 0
    file.write_text("mine")
    refused = run_cli(server, "artifacts", "get", job["job_id"], "-o", str(tmp_path))
    assert (refused.returncode, file.read_text()) == (1, "mine")
    assert "--force" in refused.stderr
    assert run_cli(server, "artifacts", "get", job["job_id"], "-o", str(tmp_path), "--force").returncode == 0
    assert file.read_text() == "one"


async def test_a_receipt_names_what_the_job_was_made_from_whatever_it_writes_about_that(
    door: Door, scratch: Path
) -> None:
    repository = Repository(scratch / "repository")
    commit = repository.head
    (repository.place / "a").write_text("changed, and not committed")
    source = scratch / "in.csv"
    source.write_text("a,b")
    spoil = """
        git init --quiet --bare elsewhere && rm -rf .git && ln -s elsewhere .git
        for forged in source_pins inputs; do
            for place in "$JOBLEDGER_JOB_DIR" "$JOBLEDGER_JOB_DIR/../../logs/$JOBLEDGER_JOB_ID"; do
                printf '{"git_dirty": "no", "%s": "forged"}' "$1" > "$place/$forged.json"
            done
        done
    """
    spec: dict[str, Any] = {"inputs": [{"type": "INPUT_TYPE_FILE", "file_path": str(source)}], "tools": ["sh"]}
    spec["working_dir"] = str(repository.place)
    created = await door.create("sh", "-c", spoil, "sh", str(source), **spec)
    assert (await door.ended(created["job_id"]))["state"] == "completed"
    receipt = json.loads((await door.receipt(created["job_id"]))[0])
    shell = Path(shutil.which("sh") or "").resolve()
    assert receipt["source_pins"] == {
        "git_commit": commit,
        "git_dirty": "yes",
        "tool:sh": f"sha256:{hashlib.sha256(shell.read_bytes()).hexdigest()} {shell}",
    }
    assert [it["sha256"] for it in receipt["inputs"]] == [hashlib.sha256(b"a,b").hexdigest()]
