"""What the audit log is told of a call that is refused, whatever its caller sent."""

from typing import Any

import pytest
from jobledger_server.api.interceptors.auditing import MOST_CHARACTERS, Refusals
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.ports import AuditRecord


class Noted:
    """In place of the audit log."""

    def __init__(self) -> None:
        self.entries: list[AuditRecord] = []

    def complete(self, entry: AuditRecord) -> None:
        pass

    def note_failure(self, entry: AuditRecord) -> None:
        self.entries.append(entry)


class Caller:
    """One who sends this request id."""

    def __init__(self, request_id: str | bytes) -> None:
        self._request_id = request_id

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return (("x-request-id", self._request_id),)

    def peer(self) -> str:
        return "ipv4:192.0.2.1:50000"


@pytest.mark.parametrize(
    ("sent", "told"),
    [("r1", "r1"), ("é", "é"), ("x" * 999, "x" * MOST_CHARACTERS), ("a\udcffb", "a?b"), (b"r1", "")],
)
async def test_a_request_id_is_told_in_a_form_that_can_be_stored(sent: str | bytes, told: str) -> None:
    async def refuse(request: Any, context: Any) -> None:
        raise ServiceError(Reason.ERROR_REASON_AUTH_MISSING)

    noted: Any = Noted()
    caller: Any = Caller(sent)
    with pytest.raises(ServiceError):
        await Refusals(audit=noted).unary("/jobledger.v1.JobService/GetJob", refuse)(None, caller)
    [entry] = noted.entries
    assert (entry.request_id, entry.method, entry.peer) == (told, "jobledger.v1.JobService/GetJob", "192.0.2.1")
    assert entry.reason == "AUTH_MISSING"
