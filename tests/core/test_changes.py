"""A change, once begun, comes to its end, whatever becomes of who asked for it."""

import asyncio
import logging

import pytest
from jobledger_server.core.changes import completed, settled
from jobledger_server.core.errors import Reason, ServiceError


class Change:
    """One that waits in its midst, and then fails as it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.done: list[str] = []
        self._error = error

    @completed
    async def make(self, name: str) -> str:
        """Says so."""
        self.begun.set()
        await self.go_on.wait()
        self.done.append(name)
        if self._error is not None:
            raise self._error
        return name


async def left(change: Change) -> None:
    """A caller leaves while the change is made."""
    calling = asyncio.create_task(change.make("a"))
    await change.begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert change.done == []
    change.go_on.set()


async def test_who_waits_gets_the_answer_or_the_failure() -> None:
    change, failing = Change(), Change(KeyError("k"))
    change.go_on.set()
    failing.go_on.set()
    assert await change.make("a") == "a"
    with pytest.raises(KeyError):
        await failing.make("a")
    assert change.make.__doc__ == "Says so."


async def test_a_change_goes_on_where_its_caller_leaves_and_can_be_waited_for() -> None:
    change = Change()
    await left(change)
    await settled()
    assert change.done == ["a"]
    await settled()


@pytest.mark.parametrize(
    ("error", "logged"), [(KeyError("k"), 1), (ServiceError(Reason.ERROR_REASON_JOB_ALREADY_FINISHED), 0)]
)
async def test_a_failure_that_nobody_hears_of_is_logged_and_a_refusal_is_not(
    error: Exception, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    change = Change(error)
    with caplog.at_level(logging.ERROR):
        await left(change)
        await settled()
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error] * logged


async def test_what_waits_for_ever_is_broken_off(caplog: pytest.LogCaptureFixture) -> None:
    change = Change()
    calling = asyncio.create_task(change.make("a"))
    await change.begun.wait()
    await settled(0.01)
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert change.done == []
    assert "has not come: 1" in caplog.text
