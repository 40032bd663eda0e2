"""A disk without room: what was acknowledged stays, what can't be kept is refused, and space alone heals it."""

import asyncio
import json
import operator
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from faults.serving import not_possible, running_job, serving
from support.doors import GrpcDoor, Refused
from support.eventually import eventually
from support.running import output_file

DISK_BYTES = 16 * 1024 * 1024
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MOST_TRIES, NARROW_STARTS = 500, 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 16 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        not_possible("a small disk", getattr(error, "stderr", "") or str(error))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Leaves not a byte; the file that it returns has them."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1024 * 1024, 4096, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
    assert os.statvfs(disk).f_bavail == 0
    return ballast


@pytest.fixture
def settings(tmp_path: Path) -> Sequence[str]:
    """Flags of a server that lets its disk become as full as it can: these disks are never larger than its minimum."""
    file = tmp_path / "jobledger.toml"
    file.write_text("warn_free_bytes = 0\nmin_free_bytes = 0\n")
    return "--config", str(file)


async def create_until_refused(door: GrpcDoor) -> tuple[list[str], Refused]:
    """The jobs that were acknowledged, and the refusal that came then."""
    acknowledged: list[str] = []
    for _ in range(MOST_TRIES):
        try:
            acknowledged.append((await door.create("true"))["job_id"])
        except Refused as refused:
            return acknowledged, refused
    raise AssertionError(f"a full disk took {MOST_TRIES} jobs")


async def test_a_full_disk_refuses_new_jobs_reads_go_on_and_space_alone_heals(
    small_disk: Path, tmp_path: Path, settings: Sequence[str]
) -> None:
    gate = tmp_path / "gate"
    async with serving(small_disk / "data", "--max-running", "1", *settings) as (_, door):
        running = await running_job(door, gate)
        queued = [(await door.create("echo", "done"))["job_id"] for _ in range(3)]
        ballast = fill(small_disk)
        late, refused = await create_until_refused(door)
        assert refused.error_code == "E_ENGINE_SAFE_MODE"
        assert "can't write" in (await door.call("GetStatus"))["health"]
        accepted = [running, *queued, *late]
        assert (await door.call("ListJobs"))["total"] == len(accepted)
        assert (await door.get(running))["state"] == "running"
        assert (await door.call("GetLogs", job_id=running))["total"] == 0
        ballast.unlink()
        gate.touch()
        assert [(await door.ended(job_id))["state"] for job_id in accepted] == ["completed"] * len(accepted)
        assert (await door.ended((await door.create("true"))["job_id"]))["state"] == "completed"
        assert (await door.call("GetStatus"))["health"] == "ok"


async def test_a_job_that_ends_on_a_full_disk_gets_its_receipt_when_there_is_space(
    small_disk: Path, tmp_path: Path, settings: Sequence[str]
) -> None:
    gate = tmp_path / "gate"
    async with serving(small_disk / "data", *settings) as (_, door):
        job_id = await running_job(door, gate)
        ballast = fill(small_disk)
        await create_until_refused(door)
        gate.touch()
        await eventually(lambda: asyncio.to_thread(gate.exists), until=operator.not_)
        assert (await door.call("WaitJob", job_id=job_id, timeout="1s"))["state"] == "running"
        ballast.unlink()
        assert (await door.ended(job_id))["state"] == "completed"
        receipt, _ = await door.receipt(job_id)
        assert json.loads(receipt)["summary"]["exit_code"] == 0


async def test_cancelling_on_a_full_disk_is_refused_and_works_once_there_is_space(
    small_disk: Path, tmp_path: Path, settings: Sequence[str]
) -> None:
    async with serving(small_disk / "data", *settings) as (_, door):
        job_id = await running_job(door, tmp_path / "never", grace_period="1s")
        ballast = fill(small_disk)
        await create_until_refused(door)
        with pytest.raises(Refused) as refused:
            await door.cancel(job_id)
        assert refused.value.error_code == "E_ENGINE_SAFE_MODE"
        assert (await door.get(job_id))["state"] == "running"
        ballast.unlink()
        assert (await door.cancel(job_id))["state"] == "cancelling"
        assert (await door.ended(job_id))["state"] == "cancelled"


async def test_a_cancel_that_is_stored_reaches_its_job_once_there_is_space(small_disk: Path, tmp_path: Path) -> None:
    """The intent is stored, and the file that tells the supervisor finds no room: nobody has to ask again."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    (data_dir / "control").symlink_to(small_disk)
    async with serving(data_dir) as (_, door):
        job_id = await running_job(door, tmp_path / "never", grace_period="1s")
        ballast = fill(small_disk)
        assert (await door.cancel(job_id))["state"] == "cancelling"
        ballast.unlink()
        await eventually(lambda: door.get(job_id), until=lambda job: job["state"] == "cancelled")


async def test_a_job_whose_start_finds_no_room_to_be_noted_still_runs_only_once(
    small_disk: Path, tmp_path: Path
) -> None:
    """There is room for its specification, and none for the note that follows: what was begun must not begin again."""
    data_dir, starts = tmp_path / "data", tmp_path / "starts"
    data_dir.mkdir(mode=0o700)
    (data_dir / "control").symlink_to(small_disk)
    async with serving(data_dir, "--max-running", str(NARROW_STARTS)) as (_, door):
        ballast = fill(small_disk)
        accepted = []
        for _ in range(NARROW_STARTS):
            os.truncate(ballast, ballast.stat().st_size - PAGE_BYTES)
            job_id = (await door.create("sh", "-c", f'echo "$JOBLEDGER_JOB_ID" >> {starts}; sleep 1'))["job_id"]
            await eventually(lambda job_id=job_id: was_tried(door, data_dir, job_id))  # type: ignore[misc]
            accepted.append(job_id)
        ballast.unlink()
        for job_id in accepted:
            await door.ended(job_id)
    assert sorted(starts.read_text().split()) == sorted(accepted)


async def was_tried(door: GrpcDoor, data_dir: Path, job_id: str) -> bool:
    """Whether the server has started the job, or says that it could not."""
    return (await door.get(job_id))["state"] != "queued" or job_id in output_file(data_dir).read_text()
