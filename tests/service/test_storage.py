"""What is left of the disk, and what follows from it."""

from collections.abc import Callable

import pytest
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.service.storage import Storage
from support.clock import ManualClock

MIB = 2**20


def a_storage(clock: ManualClock, free: Callable[[], int]) -> Storage:
    return Storage(clock=clock, free=free, warn_free_bytes=1000 * MIB, min_free_bytes=100 * MIB)


@pytest.mark.parametrize(
    ("free", "told"),
    [
        (1000 * MIB, ""),
        (1000 * MIB - 1, "low disk: 1000 MiB left"),
        (100 * MIB, "low disk: 100 MiB left"),
        (99 * MIB, "low disk: 99 MiB left, no new jobs are accepted"),
        (0, "low disk: 0 MiB left, no new jobs are accepted"),
    ],
)
async def test_a_low_disk_is_told_and_so_is_what_follows(clock: ManualClock, free: int, told: str) -> None:
    assert await a_storage(clock, lambda: free).trouble() == told


async def test_new_jobs_need_the_minimum_and_the_refusal_says_what_to_do(clock: ManualClock) -> None:
    await a_storage(clock, lambda: 100 * MIB).require_room()
    with pytest.raises(ServiceError, match="gc --dry-run") as refused:
        await a_storage(clock, lambda: 100 * MIB - 1).require_room()
    assert refused.value.reason == Reason.ERROR_REASON_ENGINE_SAFE_MODE
    assert refused.value.retry_after


async def test_the_disk_is_asked_once_a_second_at_most(clock: ManualClock) -> None:
    answers = iter((5, 6))
    storage = a_storage(clock, lambda: next(answers))
    assert [await storage.free_bytes(), await storage.free_bytes()] == [5, 5]
    clock.advance(0.5)
    assert await storage.free_bytes() == 5
    clock.advance(0.5)
    assert await storage.free_bytes() == 6


async def test_a_disk_that_can_not_be_asked_takes_nothing(clock: ManualClock) -> None:
    def gone() -> int:
        raise FileNotFoundError

    assert await a_storage(clock, gone).free_bytes() == 0
