"""A server of the demonstration's own: started, waited for, stopped."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.05


class DemoError(Exception):
    """The demonstration found that something is not as it should be; the message says what."""


@dataclass(frozen=True, slots=True)
class DemoServer:
    """Where the server is: its data directory, gRPC target, base of the REST API, and the file with the token."""

    data_dir: Path
    grpc: str
    http: str
    token_file: Path


@asynccontextmanager
async def running_server(data_dir: Path) -> AsyncIterator[DemoServer]:
    """Runs `jobledger up` on free ports for as long as the context lasts.

    Raises:
        DemoError: it did not come up; the message has its last words.
    """
    with (data_dir / "server.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jobledger.cli", "up", "--data-dir", str(data_dir)),
            *("--grpc-port", "0", "--http-port", "0"),
            stdout=log,
            stderr=log,
        )
        try:
            yield await _ready(process, data_dir)
        finally:
            await _stop(process)


async def _ready(process: asyncio.subprocess.Process, data_dir: Path) -> DemoServer:
    path = data_dir / "endpoints.json"
    try:
        async with asyncio.timeout(START_SECONDS):
            while not (found := _endpoints(path, process.pid)):
                if process.returncode is not None:
                    raise DemoError(f"`jobledger up` ended with {process.returncode}:\n{_last_words(data_dir)}")
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise DemoError(f"no server after {START_SECONDS:.0f} s:\n{_last_words(data_dir)}") from None
    return found


def _endpoints(path: Path, pid: int) -> DemoServer | None:
    """What the server wrote, once it has; what an earlier server left does not count."""
    if not path.exists():
        return None
    content = json.loads(path.read_text("utf-8"))
    if content["pid"] != pid:
        return None
    return DemoServer(path.parent, content["grpc"], content["http"], Path(content["token_file"]))


def _last_words(data_dir: Path) -> str:
    lines = (data_dir / "server.log").read_text("utf-8", "replace").splitlines()
    return "\n".join(lines[-15:]) or "(it said nothing)"


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
