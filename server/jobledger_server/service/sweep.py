"""One pass over everything that may go: what it found, and how it leaves room for others."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Sweep:
    """A pass.

    Attributes:
        now: what "old" is measured from.
        dry_run: whether nothing is removed.
        rest: how long it rests after each batch, in times of what the batch took.
        count, size: how many went, or would go, by class, and their bytes.
        kept: bytes that stay, by class.
    """

    now: int
    dry_run: bool = False
    rest: float = 0.0
    count: Counter[str] = field(default_factory=Counter)
    size: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    _since: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def add(self, name: str, size: int = 0, *, count: int = 1) -> None:
        """Takes note of something that went, or would go."""
        if count:
            self.count[name] += count
            self.size[name] += size

    async def breathe(self) -> None:
        """After each batch: lets others go first."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.rest * (loop.time() - self._since))
        self._since = loop.time()
