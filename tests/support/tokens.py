"""Tokens and the audit log, over REST."""

import json
from typing import Any

from support.doors import Door, GrpcDoor, RestDoor


async def issue(rest: RestDoor, **fields: object) -> tuple[str, str]:
    """A new token: (id, token)."""
    answer = await post(rest, "/v1/tokens", {"name": "test", **fields})
    return answer["info"]["token_id"], answer["token"]


async def post(rest: RestDoor, path: str, fields: dict[str, object]) -> dict[str, Any]:
    headers = {**rest.headers, "Content-Type": "application/json"}
    async with rest.session.post(rest.url + path, data=json.dumps(fields), headers=headers) as response:
        assert response.status in (200, 201), await response.text()
        return dict(await response.json())


async def audited(rest: RestDoor, **where: object) -> list[dict[str, Any]]:
    query = {name: str(value) for name, value in where.items()}
    async with rest.session.get(f"{rest.url}/v1/audit", params=query, headers=rest.headers) as response:
        assert response.status == 200
        return list((await response.json())["entries"])


def with_token(door: Door, token: str | None) -> Door:
    """The same door for another caller."""
    if isinstance(door, RestDoor):
        return RestDoor(door.session, door.url, token)
    assert isinstance(door, GrpcDoor)
    other = GrpcDoor.__new__(GrpcDoor)
    other.jobs, other.engine = door.jobs, door.engine
    other.metadata = (("authorization", f"Bearer {token}"),) if token else ()
    return other
