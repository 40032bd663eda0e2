"""Making, listing, revoking and rotating tokens."""

from dataclasses import replace

import pytest
from google.protobuf.duration_pb2 import Duration
from jobledger.v1.engine_service_pb2 import CreateTokenRequest
from jobledger_gateway.encoding import encode_json
from jobledger_server.access.admin import TokenAdmin
from jobledger_server.access.tokens import Authenticator
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import SCOPES
from jobledger_server.core.times import LATEST, SECOND, micros
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock

PEER = "ipv4:127.0.0.1"
REQUEST = CreateTokenRequest(name="ci", scopes=["jobs:read"], workspaces=["red"])


async def works(authenticator: Authenticator, token: str) -> bool:
    try:
        await authenticator.authenticate([f"Bearer {token}"], PEER)
    except ServiceError:
        return False
    return True


async def test_the_first_token_may_do_all_but_work(admin: TokenAdmin, authenticator: Authenticator) -> None:
    principal = await authenticator.authenticate([f"Bearer {await admin.create_first()}"], PEER)
    assert principal.scopes == set(SCOPES) - {"worker"}
    assert principal.workspaces is None


async def test_neither_store_nor_answers_hold_the_secret(admin: TokenAdmin, store: SqliteStore) -> None:
    issued = await admin.create(REQUEST)
    secret = issued.token.rpartition("_")[2]
    record = await store.token(issued.info.token_id)
    assert secret.encode() not in repr(record).encode()
    assert secret not in str(await admin.list())


async def test_a_list_has_every_token_oldest_first(admin: TokenAdmin, clock: ManualClock) -> None:
    made = []
    for name in ("b", "a", "c"):
        clock.advance(1)
        made.append((await admin.create(CreateTokenRequest(name=name, scopes=["admin"]))).info)
    assert await admin.list() == made


async def test_revoking_again_keeps_the_first_time(admin: TokenAdmin, clock: ManualClock) -> None:
    token_id = (await admin.create(REQUEST)).info.token_id
    first = await admin.revoke(token_id)
    clock.advance(5)
    assert await admin.revoke(token_id) == first
    assert first.HasField("revoked_at")


async def test_after_a_rotation_both_tokens_work_for_a_minute(
    admin: TokenAdmin, authenticator: Authenticator, clock: ManualClock
) -> None:
    old = await admin.create(REQUEST)
    new = await admin.rotate(old.info.token_id)
    assert new.info.token_id != old.info.token_id
    clock.advance(59.9)
    assert await works(authenticator, old.token)
    assert await works(authenticator, new.token)
    clock.advance(0.1)
    assert not await works(authenticator, old.token)
    assert await works(authenticator, new.token)


async def test_a_rotated_token_keeps_its_rights(admin: TokenAdmin) -> None:
    old = await admin.create(REQUEST)
    new = await admin.rotate(old.info.token_id)
    assert new.info.name == "ci"
    assert list(new.info.scopes) == ["jobs:read"]
    assert list(new.info.workspaces) == ["red"]
    assert not new.info.HasField("expires_at")


async def test_a_rotation_is_told_without_the_token(admin: TokenAdmin, store: SqliteStore, clock: ManualClock) -> None:
    old = await admin.create(REQUEST)
    new = await admin.rotate(old.info.token_id)
    [event] = await store.events_after(0, limit=10)
    assert event.event_type == "engine.token_rotated"
    assert (event.token_rotated.token_id, event.token_rotated.new_token_id) == (old.info.token_id, new.info.token_id)
    assert micros(event.token_rotated.valid_until) == clock.now() + 60 * SECOND
    for token in (old.token, new.token):
        assert token.rpartition("_")[2] not in str(event)


async def test_a_rotation_never_makes_a_token_last_longer(admin: TokenAdmin, clock: ManualClock) -> None:
    request = CreateTokenRequest(name="ci", scopes=["admin"], expires_in=Duration(seconds=20))
    old = await admin.create(request)
    new = await admin.rotate(old.info.token_id)
    end = clock.now() + 20 * SECOND
    assert micros(new.info.expires_at) == end
    assert [micros(info.expires_at) for info in await admin.list()] == [end, end]


async def test_a_token_that_was_rotated_names_its_successor_and_is_not_rotated_again(
    admin: TokenAdmin, authenticator: Authenticator, clock: ManualClock
) -> None:
    """A second successor would end with the overlap of the first rotation."""
    old = await admin.create(REQUEST)
    new = await admin.rotate(old.info.token_id)
    with pytest.raises(ServiceError, match=f"to {new.info.token_id}: rotate that one"):
        await admin.rotate(old.info.token_id)
    newest = await admin.rotate(new.info.token_id)
    assert not newest.info.HasField("expires_at")
    clock.advance(61)
    assert [await works(authenticator, issued.token) for issued in (old, new, newest)] == [False, False, True]


async def test_rotations_keep_the_line_of_a_token(admin: TokenAdmin, authenticator: Authenticator) -> None:
    """By it callers own the keys of their requests, their pages, and their share of what one token may do."""
    first = await admin.create(REQUEST)
    line = [first, await admin.rotate(first.info.token_id)]
    line.append(await admin.rotate(line[1].info.token_id))
    principals = [await authenticator.authenticate([f"Bearer {issued.token}"], PEER) for issued in line]
    assert {principal.line for principal in principals} == {first.info.token_id}
    assert [principal.token_id for principal in principals] == [issued.info.token_id for issued in line]
    stranger = await admin.create(REQUEST)
    assert (await authenticator.authenticate([f"Bearer {stranger.token}"], PEER)).line == stranger.info.token_id


async def test_a_revoked_token_can_not_be_rotated(admin: TokenAdmin) -> None:
    token_id = (await admin.create(REQUEST)).info.token_id
    await admin.revoke(token_id)
    with pytest.raises(ServiceError, match="create a new one"):
        await admin.rotate(token_id)


async def test_an_expired_token_can_not_be_rotated(admin: TokenAdmin, clock: ManualClock) -> None:
    """The new one would have expired as well."""
    request = CreateTokenRequest(name="ci", scopes=["admin"], expires_in=Duration(seconds=20))
    token_id = (await admin.create(request)).info.token_id
    clock.advance(20)
    with pytest.raises(ServiceError, match="create a new one"):
        await admin.rotate(token_id)


@pytest.mark.parametrize("verb", ["revoke", "rotate"])
async def test_an_unknown_token_is_not_found(admin: TokenAdmin, verb: str) -> None:
    with pytest.raises(ServiceError) as caught:
        await getattr(admin, verb)("nobody")
    assert caught.value.reason == Reason.ERROR_REASON_NOT_FOUND


async def test_a_token_that_outlives_the_calendar_is_shown_with_its_last_moment(
    admin: TokenAdmin, store: SqliteStore, clock: ManualClock
) -> None:
    """One that an earlier version stored keeps nobody from listing the others."""
    issued = await admin.create(REQUEST)
    record = await store.token(issued.info.token_id)
    assert record is not None
    await store.put_token(replace(record, expires_at=400_000_000_000 * SECOND))
    [shown] = await admin.list()
    assert shown.expires_at.ToJsonString() == "9999-12-31T23:59:59Z"
    assert encode_json(shown)
    rotated = await admin.rotate(issued.info.token_id)
    assert rotated.info.expires_at.ToJsonString() == "9999-12-31T23:59:59Z"
    clock.advance(LATEST - clock.now() // SECOND - 1)
    request = CreateTokenRequest(name="long", scopes=["jobs:read"], expires_in=Duration(seconds=3_155_760_000))
    assert (await admin.create(request)).info.expires_at.ToJsonString() == "9999-12-31T23:59:59Z"
