"""The files that tokens are read from and written to."""

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest
from cli.program import Run
from jobledger.v1.engine_service_pb2 import IssuedToken, TokenInfo
from sdk.fake_server import TOKEN, FakeServer
from support.certificates import Authority
from support.root import only_root

AUTHORITY = Authority.make()


async def test_a_rotation_renews_the_file_that_the_token_is_read_from(
    server: FakeServer, run: Run, tmp_path: Path
) -> None:
    """Else every later call, and the next start of a server whose file it is, would fail in a minute."""
    server.on("RotateToken", IssuedToken(info=TokenInfo(token_id="new"), token="jl_new_secret"))
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    own = {"JOBLEDGER_TOKEN": "", "JOBLEDGER_TOKEN_FILE": str(path)}
    other = await run("token", "rotate", "another", **own)
    assert (other.out, other.err, path.read_text()) == ("jl_new_secret\n", "", f"{TOKEN}\n")
    outcome = await run("token", "rotate", "test", **own)
    assert (outcome.out, outcome.err) == ("jl_new_secret\n", f"{path} holds the new token\n")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("jl_new_secret\n", 0o600)


async def test_a_token_file_that_is_a_link_is_not_replaced(server: FakeServer, run: Run, tmp_path: Path) -> None:
    server.on("RotateToken", IssuedToken(info=TokenInfo(token_id="new"), token="jl_new_secret"))
    target, link = tmp_path / "token", tmp_path / "link"
    target.write_text(f"{TOKEN}\n")
    link.symlink_to(target)
    outcome = await run("token", "rotate", "test", JOBLEDGER_TOKEN="", JOBLEDGER_TOKEN_FILE=str(link))
    assert outcome.out == "jl_new_secret\n"
    assert "still holds the old token (it is a symbolic link): put the new one there" in outcome.err
    assert (link.is_symlink(), target.read_text()) == (True, f"{TOKEN}\n")


@pytest.mark.parametrize("arguments", [("create", "--name", "ci", "--scope", "admin"), ("rotate", "another")])
async def test_no_token_is_made_for_a_file_that_can_not_be_written(
    server: FakeServer, run: Run, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """The server would tell it once, and the old one would end."""
    for place in (tmp_path / "missing" / "t", tmp_path):
        outcome = await run("token", *arguments, "-o", str(place))
        assert (outcome.code, outcome.out) == (2, "")
        assert str(place.parent) in outcome.err
    assert not {"CreateToken", "RotateToken"} & {*server.requests}
    assert not list(tmp_path.iterdir())


async def test_a_token_whose_file_can_not_be_written_after_all_is_printed(
    server: FakeServer, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()

    def takes_the_place_away(_: object) -> IssuedToken:
        for path in (tmp_path / "d").iterdir():
            path.unlink()
        return IssuedToken(info=TokenInfo(token_id="new"), token="jl_new_secret")

    server.on("RotateToken", takes_the_place_away)
    outcome = await run("token", "rotate", "another", "-o", str(tmp_path / "d" / "t"))
    assert (outcome.code, outcome.out) == (2, "jl_new_secret\n")
    assert f"{tmp_path / 'd' / 't'} can't be written" in outcome.err


@pytest.fixture
async def by_certificate(tmp_path: Path) -> AsyncIterator[tuple[FakeServer, Sequence[str]]]:
    """A server that lets in by certificate, and the options that show one."""
    AUTHORITY.write(tmp_path, "ca")
    AUTHORITY.client("spiffe://acme.example/admin").write(tmp_path, "me")
    server = AUTHORITY.server("127.0.0.1")
    pair = (server.key_pem, server.pem)
    async with FakeServer(grpc.ssl_server_credentials([pair], AUTHORITY.pem, require_client_auth=True)) as fake:
        files = {"ca-file": "ca.pem", "cert-file": "me.pem", "key-file": "me.key"}
        yield fake, [f"--target={fake.target}", *(f"--{option}={tmp_path / name}" for option, name in files.items())]


async def test_who_is_let_in_by_certificate_needs_no_token_for_tokens(
    by_certificate: tuple[FakeServer, Sequence[str]], run: Run, tmp_path: Path
) -> None:
    server, shown = by_certificate
    server.on("RotateToken", IssuedToken(info=TokenInfo(token_id="new"), token="jl_new_secret"))
    server.on("WhoAmI", TokenInfo(token_id="spiffe://acme.example/admin", name="admin", scopes=["admin"]))
    none = {"JOBLEDGER_TOKEN": ""}
    before = (tmp_path / "me.pem").read_bytes()
    outcome = await run("token", "rotate", "abc", *shown, **none)
    assert (outcome.code, outcome.out, outcome.err) == (0, "jl_new_secret\n", "")
    assert (tmp_path / "me.pem").read_bytes() == before
    outcome = await run("token", "show", *shown, **none)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[:3] == [
        f"found in    {tmp_path / 'me.pem'}",
        "token       spiffe://acme.example/admin (admin)",
        "secret      none: it is the certificate that lets you in",
    ]
    outcome = await run("token", "show", "--reveal", *shown, **none)
    assert (outcome.code, outcome.out) == (4, "")
    assert "no token was sent" in outcome.err
    assert all("authorization" not in it for it in server.metadata)


@only_root
async def test_root_leaves_the_file_that_it_renews_to_its_owner(server: FakeServer, run: Run, tmp_path: Path) -> None:
    """Else that user's server would not start again. A file for the new token is root's, whose ever was there."""
    server.on("RotateToken", IssuedToken(info=TokenInfo(token_id="new"), token="jl_new_secret"))
    path, other = tmp_path / "token", tmp_path / "other"
    for file in (path, other):
        file.write_text(f"{TOKEN}\n")
        file.chmod(0o600)
        os.chown(file, 12345, 54321)
    own = {"JOBLEDGER_TOKEN": "", "JOBLEDGER_TOKEN_FILE": str(path)}
    assert (await run("token", "rotate", "test", "-o", str(other), **own)).code == 0
    for file, owner in ((path, (12345, 54321)), (other, (0, os.getegid()))):
        status = file.stat()
        assert (status.st_uid, status.st_gid) == owner
        assert (status.st_mode & 0o777, file.read_text()) == (0o600, "jl_new_secret\n")
