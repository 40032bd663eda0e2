"""Waking many waiters: each learns of all news, and nobody else has to wait for them."""

import asyncio

import pytest
from jobledger_server.service import rounds as rounds_module
from jobledger_server.service.rounds import Rounds


class Waiter:
    """Waits again and again, and counts how often it was woken."""

    def __init__(self, rounds: Rounds) -> None:
        self.woken = 0
        self.seen = rounds.news
        self._rounds = rounds
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await self._rounds.wait(self.seen)
            self.seen = self._rounds.news
            self.woken += 1


async def turns(count: int) -> None:
    """Lets the loop go round so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def waiting(rounds: Rounds, count: int) -> list[Waiter]:
    waiters = [Waiter(rounds) for _ in range(count)]
    await turns(1)
    return waiters


async def end(waiters: list[Waiter]) -> None:
    for waiter in waiters:
        waiter.task.cancel()
    await asyncio.gather(*(waiter.task for waiter in waiters), return_exceptions=True)


async def test_a_waiter_is_woken_at_once() -> None:
    rounds = Rounds()
    waiters = await waiting(rounds, 1)
    rounds.tell()
    await turns(2)
    assert waiters[0].woken == 1
    await end(waiters)


async def test_who_has_not_heard_of_what_there_is_does_not_wait() -> None:
    rounds = Rounds()
    before = rounds.news
    rounds.tell()
    async with asyncio.timeout(5):
        await rounds.wait(before)


async def test_a_round_lets_other_work_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds_module, "SLICE", 10)
    rounds = Rounds()
    waiters = await waiting(rounds, 35)
    rounds.tell()
    counts = list[int]()
    while not counts or counts[-1] < len(waiters):
        await turns(1)
        counts.append(sum(waiter.woken for waiter in waiters))
    steps = [later - earlier for earlier, later in zip([0, *counts], counts, strict=False)]
    assert max(steps) == 10
    assert counts[-1] == 35
    await end(waiters)


async def test_news_during_a_round_come_in_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is left out, and nobody is woken twice in a round."""
    monkeypatch.setattr(rounds_module, "SLICE", 10)
    rounds = Rounds()
    waiters = await waiting(rounds, 30)
    rounds.tell()
    await turns(2)
    rounds.tell()
    async with asyncio.timeout(5):
        while any(waiter.seen < rounds.news for waiter in waiters):
            await turns(1)
    assert max(waiter.woken for waiter in waiters) <= 2
    await end(waiters)


async def test_after_a_round_the_waiters_are_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds_module, "REST", 1e6)
    rounds = Rounds()
    waiters = await waiting(rounds, 1)
    rounds.tell()
    await turns(3)
    rounds.tell()
    await turns(10)
    assert waiters[0].woken == 1
    await end(waiters)


async def test_a_waiter_that_gives_up_does_not_disturb_the_others() -> None:
    rounds = Rounds()
    waiters = await waiting(rounds, 3)
    await end(waiters[:1])
    rounds.tell()
    await turns(3)
    assert [waiter.woken for waiter in waiters] == [0, 1, 1]
    await end(waiters)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_waiter_that_can_be_served_in_its_absence_sleeps_on(*, fails: bool) -> None:
    """As long as that goes well, and whatever goes wrong with it is nobody else's trouble."""
    rounds, served = Rounds(), list[str]()

    def serve() -> bool:
        served.append("serve")
        if fails:
            raise ValueError("no")
        return len(served) < 3

    waiter = asyncio.create_task(rounds.wait(rounds.news, serve))
    others = await waiting(rounds, 1)
    async with asyncio.timeout(5):
        while not waiter.done():
            rounds.tell()
            await turns(3)
    assert len(served) == (1 if fails else 3)
    assert others[0].woken >= 1
    await end(others)
