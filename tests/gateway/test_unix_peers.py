"""A unix socket lets one user in. Others are turned away before anything is read, and most never get that far."""

import asyncio
import os
import socket
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from jobledger_gateway.serving import serve
from support.root import NOBODY, as_user, only_root

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

pytestmark = pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="only Linux tells who connected")


def app(asked: list[str]) -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(text="hello")

    application = web.Application()
    application.router.add_get("/", answer)
    return application


def ask(path: Path, uid: int) -> bytes:
    """All that another user is told."""
    said = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        with as_user(uid):
            connection.connect(str(path))
        try:
            connection.sendall(REQUEST)
            while data := connection.recv(4096):
                said += data
        except ConnectionError:
            pass
    return said


async def test_another_user_than_the_one_is_turned_away_unread(open_directory: Path) -> None:
    """Here this very user is not the one."""
    asked: list[str] = []
    path = open_directory / "http.sock"
    async with serve(app(asked), host="127.0.0.1", port=0, unix_path=path, unix_uid=os.geteuid() + 1):
        assert await asyncio.to_thread(ask, path, os.geteuid()) == b""
    async with serve(app(asked), host="127.0.0.1", port=0, unix_path=path, unix_uid=os.geteuid()):
        assert asked == []
        assert b"hello" in await asyncio.to_thread(ask, path, os.geteuid())


@only_root
async def test_nobody_is_turned_away_where_the_directory_lets_him(open_directory: Path) -> None:
    asked: list[str] = []
    path = open_directory / "http.sock"
    async with serve(app(asked), host="127.0.0.1", port=0, unix_path=path, unix_uid=os.geteuid()):
        path.chmod(0o777)
        assert await asyncio.to_thread(ask, path, NOBODY) == b""
        assert asked == []
        open_directory.chmod(0o700)
        with pytest.raises(PermissionError):
            await asyncio.to_thread(ask, path, NOBODY)


async def test_who_is_let_in_keeps_the_connection(open_directory: Path) -> None:
    path = open_directory / "http.sock"
    asked: list[str] = []
    async with (
        serve(app(asked), host="127.0.0.1", port=0, unix_path=path, unix_uid=os.geteuid()),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path), limit=1)) as session,
    ):
        for _ in range(3):
            async with session.get("http://localhost/") as told:
                assert await told.text() == "hello"
    assert asked == ["/"] * 3
