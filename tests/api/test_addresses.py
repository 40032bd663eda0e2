"""Where the server listens: what is taken by another is left to it, and what others could reach is refused."""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from aiohttp import web
from jobledger_server.access.private_files import PrivateFileError
from jobledger_server.access.tls_files import TlsFileError
from jobledger_server.addresses import bind, reachable, serving, socket_path
from jobledger_server.api.grpc_server import OPTIONS
from jobledger_server.config import Settings
from jobledger_server.lifecycle import StartError
from jobledger_server.wiring.tls import open_tls
from support.certificates import Authority
from support.root import NOBODY, as_user, only_root


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, grpc_port=0)


@pytest.fixture
async def server() -> AsyncIterator[grpc.aio.Server]:
    server = grpc.aio.server(options=OPTIONS)
    yield server
    await server.stop(None)


def test_a_socket_on_which_a_server_listens_is_left_to_it(settings: Settings) -> None:
    """Whatever has become of the lock on the directory: who binds it takes the other's clients away."""
    run = settings.data_dir / "run"
    run.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(run / "grpc.sock"))
        living.listen(1)
        with pytest.raises(StartError, match=r"a server listens on .*grpc\.sock"):
            socket_path(settings, "grpc.sock")
    assert socket_path(settings, "grpc.sock") == run / "grpc.sock", "it is dead, and can be replaced"


def test_a_directory_of_sockets_that_others_can_reach_is_refused(settings: Settings, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    run.chmod(0o750)
    with pytest.raises(PrivateFileError, match=r"run is open to other users"):
        socket_path(settings, "http.sock")
    run.rename(tmp_path / "elsewhere")
    run.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PrivateFileError, match="run is not a directory"):
        socket_path(settings, "http.sock")


def refusal_to_nobody(path: Path) -> int:
    """What another user gets who connects: an error's number, 0 where he is let in and, having said nothing, out."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        with as_user(NOBODY):
            refusal = connection.connect_ex(str(path))
        if not refusal:
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1024):
                pass
        return refusal


@only_root
async def test_another_user_of_the_machine_gets_to_no_socket(open_directory: Path, server: grpc.aio.Server) -> None:
    """Whatever the mode of the sockets: so the directory is all that there is between."""
    settings = Settings(data_dir=open_directory, grpc_port=0, http_port=0)
    bind(server, settings, None)
    await server.start()
    async with serving(web.Application(), settings, None):
        sockets = [open_directory / "run" / name for name in ("grpc.sock", "http.sock")]
        for path in sockets:
            path.chmod(0o777)
        assert [await asyncio.to_thread(refusal_to_nobody, path) for path in sockets] == [errno.EACCES] * 2
        (open_directory / "run").chmod(0o755)
        assert [await asyncio.to_thread(refusal_to_nobody, path) for path in sockets] == [0, 0]


async def test_a_port_of_another_server_is_never_shared(
    settings: Settings, tmp_path: Path, server: grpc.aio.Server
) -> None:
    """grpc by itself shares it, and half of the calls go to the other one."""
    other = grpc.aio.server(options=OPTIONS)
    port = other.add_insecure_port("127.0.0.1:0")
    taken = Settings(data_dir=tmp_path, grpc_port=port, unix_socket=False)
    with pytest.raises(StartError, match=f"127.0.0.1:{port} is taken"):
        bind(server, taken, None)
    await other.stop(None)


async def test_listening_beyond_this_machine_in_the_clear_is_shouted_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as stack:
        assert await open_tls(stack, Settings(data_dir=tmp_path)) is None
        assert not caplog.records
        await open_tls(stack, Settings(data_dir=tmp_path, host="192.0.2.1", insecure_bind=True))
    assert caplog.records[0].levelno == logging.WARNING
    assert "INSECURE: 192.0.2.1 is not this machine alone" in caplog.text


async def test_with_tls_there_is_nothing_to_shout_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(
        data_dir=tmp_path,
        host="192.0.2.1",
        tls_certificate=tmp_path / "server.pem",
        tls_key=tmp_path / "server.key",
    )
    async with AsyncExitStack() as stack:
        with pytest.raises(TlsFileError, match=r"server\.pem can't be read"):
            await open_tls(stack, settings)
        Authority.make().server().write(tmp_path, "server")
        watch = await open_tls(stack, settings)
        assert watch is not None
    assert "INSECURE" not in caplog.text


@pytest.mark.parametrize(
    ("host", "called"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("192.0.2.1", "192.0.2.1")]
)
def test_clients_on_this_machine_are_told_an_address_that_they_can_reach(host: str, called: str) -> None:
    assert reachable(host) == called
