"""How tests run the program."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """How a run of the program ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Awaitable[Outcome]]
Start = Callable[..., Awaitable[asyncio.subprocess.Process]]
