"""Credentials: which forms pass, whose they are, and how guessing is slowed down."""

import hashlib
import hmac
from collections.abc import Sequence

import pytest
from google.protobuf.duration_pb2 import Duration
from jobledger.v1.engine_service_pb2 import CreateTokenRequest
from jobledger.v1.errors_pb2 import ErrorReason
from jobledger_server.access.admin import TokenAdmin
from jobledger_server.access.cached_tokens import CachedTokens
from jobledger_server.access.tokens import TOKEN, Authenticator, issue
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.ports import StoreUnavailableError
from jobledger_server.stores.sqlite import SqliteStore
from support.clock import ManualClock

PEER = "ipv4:127.0.0.1"
UNKNOWN = "jl_abcdefgh_" + "A" * 43

REQUEST = CreateTokenRequest(name="ci", scopes=["jobs:read"])


async def reason_for(
    authenticator: Authenticator, credentials: Sequence[str | bytes], peer: str = PEER
) -> ErrorReason.ValueType:
    with pytest.raises(ServiceError) as caught:
        await authenticator.authenticate(credentials, peer)
    assert "AAA" not in str(caught.value), "an error never repeats what was sent"
    return caught.value.reason


async def test_a_token_stands_for_its_scopes_and_workspaces(admin: TokenAdmin, authenticator: Authenticator) -> None:
    request = CreateTokenRequest(name="ci", scopes=["jobs:read", "jobs:cancel"], workspaces=["red"])
    issued = await admin.create(request)
    principal = await authenticator.authenticate([f"Bearer {issued.token}"], PEER)
    assert principal.token_id == issued.info.token_id
    assert principal.scopes == {"jobs:read", "jobs:cancel"}
    assert principal.workspaces == frozenset({"red"})


async def test_a_token_without_workspaces_sees_all(admin: TokenAdmin, authenticator: Authenticator) -> None:
    issued = await admin.create(REQUEST)
    assert (await authenticator.authenticate([f"Bearer {issued.token}"], PEER)).workspaces is None


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
async def test_the_case_of_the_scheme_does_not_matter(
    admin: TokenAdmin, authenticator: Authenticator, scheme: str
) -> None:
    token = await admin.create_first()
    await authenticator.authenticate([f"{scheme} {token}"], PEER)
    await authenticator.authenticate([f"{scheme} {token}".encode()], PEER)


async def test_no_credentials_are_missing(authenticator: Authenticator) -> None:
    assert await reason_for(authenticator, []) == Reason.ERROR_REASON_AUTH_MISSING


@pytest.mark.parametrize(
    "credentials",
    [
        [""],
        ["Bearer"],
        ["Bearer "],
        ["Basic dXNlcjpwYXNz"],
        ["Bearer jl_abcdefgh"],
        ["Bearer abcdefgh"],
        [f"Bearer {UNKNOWN} "],
        [f"Bearer {UNKNOWN}\n"],
        [f"Bearer  {UNKNOWN}"],
        [f"Bearer {UNKNOWN}, Bearer {UNKNOWN}"],
        [UNKNOWN],
        ["Bearer jl_abcdefgh_é" + "A" * 42],
        ["Bearer jl_abcdefgh_\udce9"],
        [b"Bearer jl_abcdefgh_\xff\xfe"],
        ["Bearer jl_abcdefgh_A\0A"],
        ["Bearer jl_abcdefgh_" + "A" * 8192],
        ["Bearer jl_" + "a" * 8192 + "_A"],
        [f"Bearer {UNKNOWN}", f"Bearer {UNKNOWN}"],
        [f"Bearer {UNKNOWN}", ""],
    ],
)
async def test_what_is_not_one_bearer_token_is_malformed(
    authenticator: Authenticator, credentials: list[str | bytes]
) -> None:
    for _ in range(30):
        assert await reason_for(authenticator, credentials) == Reason.ERROR_REASON_AUTH_MALFORMED


async def test_two_valid_tokens_are_one_too_many(admin: TokenAdmin, authenticator: Authenticator) -> None:
    """Two doors may each take another one of them for the caller's."""
    token = f"Bearer {await admin.create_first()}"
    assert await reason_for(authenticator, [token, token]) == Reason.ERROR_REASON_AUTH_MALFORMED


async def test_an_unknown_token_is_invalid(authenticator: Authenticator) -> None:
    assert await reason_for(authenticator, [f"Bearer {UNKNOWN}"]) == Reason.ERROR_REASON_AUTH_INVALID


async def test_the_id_alone_opens_nothing(admin: TokenAdmin, authenticator: Authenticator) -> None:
    issued = await admin.create(REQUEST)
    for secret in ("A" * 43, issued.token.rpartition("_")[2][:-1]):
        forged = f"Bearer jl_{issued.info.token_id}_{secret}"
        assert await reason_for(authenticator, [forged]) == Reason.ERROR_REASON_AUTH_INVALID


async def test_the_secret_is_compared_in_constant_time(
    admin: TokenAdmin, authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By digests, as bytes: how long it takes tells nothing of how much was right."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(stored: bytes, shown: bytes) -> bool:
        compared.append((stored, shown))
        return shown == stored

    issued = await admin.create(REQUEST)
    monkeypatch.setattr(hmac, "compare_digest", compare)
    forged = f"Bearer jl_{issued.info.token_id}_{'A' * 43}"
    assert await reason_for(authenticator, [forged]) == Reason.ERROR_REASON_AUTH_INVALID
    await authenticator.authenticate([f"Bearer {issued.token}"], PEER)
    (stored, wrong), (same, right) = compared
    assert stored == same == right == hashlib.sha256(issued.token.encode()).digest() != wrong


async def test_a_token_works_until_it_expires(
    admin: TokenAdmin, authenticator: Authenticator, clock: ManualClock
) -> None:
    issued = await admin.create(CreateTokenRequest(name="ci", scopes=["admin"], expires_in=Duration(seconds=60)))
    clock.advance(59.9)
    await authenticator.authenticate([f"Bearer {issued.token}"], PEER)
    clock.advance(0.1)
    for _ in range(20):
        reason = await reason_for(authenticator, [f"Bearer {issued.token}"])
        assert reason == Reason.ERROR_REASON_AUTH_TOKEN_EXPIRED, "who holds a real token is not one who guesses"


async def test_a_revoked_token_is_invalid_at_once(admin: TokenAdmin, authenticator: Authenticator) -> None:
    issued = await admin.create(REQUEST)
    await authenticator.authenticate([f"Bearer {issued.token}"], PEER)
    await admin.revoke(issued.info.token_id)
    assert await reason_for(authenticator, [f"Bearer {issued.token}"]) == Reason.ERROR_REASON_AUTH_INVALID


async def test_the_last_use_is_noted_to_the_minute(
    admin: TokenAdmin, authenticator: Authenticator, store: SqliteStore, clock: ManualClock
) -> None:
    issued = await admin.create(REQUEST)
    noted = []
    for _ in range(5):
        await authenticator.authenticate([f"Bearer {issued.token}"], PEER)
        record = await store.token(issued.info.token_id)
        assert record is not None
        noted.append((clock.now() - record.last_used_at) / 1_000_000)
        clock.advance(25)
    assert noted == [0, 25, 50, 0, 25]


async def test_a_use_that_can_not_be_noted_refuses_nobody(
    admin: TokenAdmin, tokens: CachedTokens, authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = await admin.create(REQUEST)

    async def full(token_id: str, at: int) -> None:
        raise StoreUnavailableError("The disk is full")

    monkeypatch.setattr(tokens, "note_token_use", full)
    principal = await authenticator.authenticate([f"Bearer {issued.token}"], PEER)
    assert principal.token_id == issued.info.token_id


async def guess(authenticator: Authenticator, count: int, peer: str = PEER) -> list[ErrorReason.ValueType]:
    return [await reason_for(authenticator, [f"Bearer {UNKNOWN}"], peer) for _ in range(count)]


INVALID, LIMITED = Reason.ERROR_REASON_AUTH_INVALID, Reason.ERROR_REASON_AUTH_RATE_LIMITED


async def test_after_ten_wrong_tokens_in_a_minute_a_peer_is_told_to_wait(
    authenticator: Authenticator, clock: ManualClock
) -> None:
    assert await guess(authenticator, 12) == [INVALID] * 10 + [LIMITED] * 2
    with pytest.raises(ServiceError) as caught:
        await authenticator.authenticate([f"Bearer {UNKNOWN}"], PEER)
    assert caught.value.retry_after == 60
    clock.advance(60)
    assert await guess(authenticator, 11) == [INVALID] * 10 + [LIMITED]


async def test_the_window_slides(authenticator: Authenticator, clock: ManualClock) -> None:
    await guess(authenticator, 5)
    clock.advance(40)
    assert await guess(authenticator, 6) == [INVALID] * 5 + [LIMITED]
    clock.advance(20)
    assert await guess(authenticator, 6) == [INVALID] * 5 + [LIMITED]


async def test_a_peer_does_not_pay_for_another(authenticator: Authenticator) -> None:
    await guess(authenticator, 11)
    assert await guess(authenticator, 1, "ipv4:127.0.0.2") == [INVALID]


async def test_a_valid_token_is_never_refused_for_wrong_ones(admin: TokenAdmin, authenticator: Authenticator) -> None:
    token = await admin.create_first()
    await guess(authenticator, 30)
    await authenticator.authenticate([f"Bearer {token}"], PEER)
    assert await guess(authenticator, 1) == [LIMITED], "nor does it make the guesses good"


def test_a_token_has_256_random_bits_and_its_form(clock: ManualClock) -> None:
    tokens = [issue(clock)[1] for _ in range(50)]
    assert len(set(tokens)) == 50
    for token in tokens:
        match = TOKEN.fullmatch(token.encode())
        assert match is not None
        assert len(match[2]) == 43
