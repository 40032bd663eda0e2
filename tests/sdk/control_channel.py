"""The other end of a job's control channel."""

import json
import os
from pathlib import Path
from typing import Any


class Supervisor:
    """Reads the control channel, as the one of a job does."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.read().splitlines()]

    def read(self) -> bytes:
        chunks = []
        while True:
            try:
                chunks.append(os.read(self.descriptor, 65536))
            except BlockingIOError:
                return b"".join(chunks)

    def fill(self) -> None:
        """Until not a byte more goes in."""
        for size in (4096, 1):
            try:
                while True:
                    os.write(self.descriptor, b"\n" * size)
            except BlockingIOError:
                continue
