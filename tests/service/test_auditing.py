"""The audit log: what is stored and when, what is counted, its pages, and its copy in a file."""

import json
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from jobledger.v1.engine_service_pb2 import (
    AUDIT_DECISION_ALLOWED,
    AUDIT_DECISION_DENIED,
    AuditEntry,
    ListAuditEntriesRequest,
)
from jobledger_server.access.audit_file import AuditFile
from jobledger_server.access.private_files import PrivateFileError
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.pages import PageTokens
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import AuditFilter, AuditRecord
from jobledger_server.service.auditing import AuditLog
from jobledger_server.service.repeated import MOST_KNOWN, MOST_OBJECTS, MOST_STRANGERS, Repeated
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock
from support.eventually import eventually

ADMIN = Principal(token_id="admin", scopes=frozenset({"admin"}))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "jobledger.db") as store:
        yield store


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def audit_log(store: SqliteStore, clock: ManualClock, directory: Path) -> AuditLog:
    return AuditLog(store=store, clock=clock, pages=PageTokens(b"s" * 32), copy=AuditFile(directory))


def failure(peer: str = "192.0.2.1", token_id: str = "") -> AuditRecord:
    return AuditRecord(
        method="jobledger.v1.JobService/GetJob",
        token_id=token_id,
        peer=peer,
        decision=AUDIT_DECISION_DENIED,
        reason="AUTH_INVALID",
    )


def copied(file: Path) -> list[int]:
    return [json.loads(line)["number"] for line in file.read_text().splitlines()] if file.exists() else []


async def test_a_thousand_failures_of_a_stranger_are_two_entries(
    store: SqliteStore, clock: ManualClock, tmp_path: Path
) -> None:
    """The first at once, with its time and its request; then how many more there were."""
    async with audit_log(store, clock, tmp_path / "audit") as log:
        log.note_failure(failure())
        await eventually(lambda: store.audit_after(0, AuditFilter(), limit=9), until=lambda found: len(found) == 1)
        for _ in range(1000):
            log.note_failure(failure())
    first, others = await store.audit_after(0, AuditFilter(), limit=9)
    assert (first.count, others.count) == (1, 1000)
    assert first.request_id.startswith("req_")
    assert others.reason == first.reason == "AUTH_INVALID"
    assert others.peer == "192.0.2.1"


async def test_each_request_has_an_id_of_its_own(store: SqliteStore, clock: ManualClock, tmp_path: Path) -> None:
    log = audit_log(store, clock, tmp_path / "audit")
    made = [log.complete(AuditRecord()).request_id for _ in range(1000)]
    assert len({*made}) == 1000
    assert {len(made_id) for made_id in made} == {len("req_") + 16}
    assert log.complete(AuditRecord(request_id="r1")).request_id == "r1"


def test_strangers_from_ten_thousand_addresses_add_a_few_entries_a_minute(clock: ManualClock) -> None:
    """And none of them keeps what a known caller does from being told."""
    repeated = Repeated(clock=clock)
    firsts = [repeated.is_first(failure(f"192.0.2.{number}")) for number in range(10_000)]
    assert sum(firsts) == MOST_STRANGERS + 1
    assert repeated.is_first(failure(token_id="known"))
    assert [*repeated.due()] == []
    clock.advance(60)
    counted = [*repeated.due()]
    assert sum(entry.count for entry in counted) + sum(firsts) == 10_000
    assert len(counted) == 1
    assert counted[0].peer == ""
    assert repeated.is_first(failure("192.0.2.1")), "a new window"


def test_what_a_known_caller_tries_on_many_jobs_is_told_of_each_up_to_a_bound(clock: ManualClock) -> None:
    """So that a look around leaves the jobs' names, and does not fill the log; refusals are not mixed with failures."""
    repeated = Repeated(clock=clock)

    def tried(number: int, token_id: str = "known") -> AuditRecord:
        entry = failure(token_id=token_id)
        entry.object = f"job_{number}"
        return entry

    firsts = [repeated.is_first(tried(number)) for _ in range(2) for number in range(50)]
    assert sum(firsts) == MOST_OBJECTS + 1
    allowed = tried(99)
    allowed.decision = AUDIT_DECISION_ALLOWED
    assert repeated.is_first(allowed)
    for caller in range(2 * MOST_KNOWN):
        repeated.is_first(tried(1, f"caller-{caller}"))
    assert repeated.is_first(failure(token_id="known", peer="198.51.100.7")) is False
    clock.advance(60)
    counted = [*repeated.due()]
    again = [entry for entry in counted if entry.token_id == "known" and entry.object]
    assert {entry.object: entry.count for entry in again} == {f"job_{number}": 1 for number in range(MOST_OBJECTS)}
    [others] = [entry for entry in counted if entry.peer and entry.token_id == "known" and not entry.object]
    assert others.count == 100 - 2 * MOST_OBJECTS - 1


async def test_pages_are_bound_to_filter_and_caller(store: SqliteStore, clock: ManualClock, tmp_path: Path) -> None:
    await store.append_audit([AuditRecord(at=clock.now(), token_id="a") for _ in range(5)])
    log = audit_log(store, clock, tmp_path / "audit")
    seen, token = [], ""
    while True:
        page = await log.list(ListAuditEntriesRequest(limit=2, page_token=token, token_id="a"), ADMIN)
        seen += [entry.number for entry in page.entries]
        if not page.HasField("next_page_token"):
            break
        token = page.next_page_token
    assert seen == [5, 4, 3, 2, 1]
    for request, caller in (
        (ListAuditEntriesRequest(page_token=token), ADMIN),
        (ListAuditEntriesRequest(page_token=token, token_id="a"), Principal(token_id="b", scopes=ADMIN.scopes)),
    ):
        with pytest.raises(ServiceError) as refused:
            await log.list(request, caller)
        assert refused.value.reason == Reason.ERROR_REASON_VALIDATION
    following = await log.list(ListAuditEntriesRequest(after_number=3), ADMIN)
    assert [entry.number for entry in following.entries] == [4, 5]


async def test_who_is_bound_to_a_workspace_sees_nothing_of_the_audit_log(
    store: SqliteStore, clock: ManualClock, tmp_path: Path
) -> None:
    bound = Principal(token_id="b", scopes=frozenset({"admin"}), workspaces=frozenset({"red"}))
    with pytest.raises(ServiceError) as refused:
        await audit_log(store, clock, tmp_path / "audit").list(ListAuditEntriesRequest(), bound)
    assert refused.value.reason == Reason.ERROR_REASON_FORBIDDEN


async def test_the_copy_has_every_entry_once_after_a_crash_too(
    store: SqliteStore, clock: ManualClock, tmp_path: Path
) -> None:
    """It is read from where the file ends, however it ends."""
    file = tmp_path / "audit" / "audit.jsonl"
    async with audit_log(store, clock, file.parent) as log:
        await log.keep(failure())
        log.follow()
    assert copied(file) == [1]
    await store.append_audit([failure() for _ in range(3)])
    with file.open("ab") as torn:
        torn.write(b'{"number": 2, "at": "20')
    async with audit_log(store, clock, file.parent):
        pass
    lines = file.read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines if line.endswith("}")] == [1, 2, 3, 4]
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_file_that_has_grown_large_is_begun_anew(tmp_path: Path) -> None:
    """Four older ones are kept."""
    file = AuditFile(tmp_path / "audit", most_bytes=300)
    assert file.last() == 0
    for number in range(1, 21):
        file.append([AuditEntry(number=number, peer="192.0.2.1")])
    kept = sorted(path.name for path in file.path.parent.iterdir())
    assert kept[-4:] == [f"audit.jsonl.{number}" for number in (1, 2, 3, 4)]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in file.path.parent.iterdir())
    assert file.last() == 20


def test_what_does_not_fit_is_not_written_in_part(tmp_path: Path) -> None:
    """A disk that is full takes a part of a line; the next try writes it whole."""
    file = AuditFile(tmp_path / "audit")
    assert file.last() == 0
    entry = AuditEntry(number=1, peer="192.0.2.1")
    file.append([entry])
    limit = file.path.stat().st_size + 10
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        entry.number = 2
        with pytest.raises(OSError, match="No space"):
            file.append([entry])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    file.append([entry])
    assert copied(file.path) == [1, 2]


def test_a_link_in_place_of_the_file_stops_the_start_and_is_named(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit")
    assert file.last() == 0
    (tmp_path / "elsewhere").touch(0o600)
    file.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PrivateFileError, match=r"audit\.jsonl is a symbolic link"):
        file.last()
