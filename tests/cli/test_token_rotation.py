"""The file that a token is read from, when the token is rotated."""

from pathlib import Path

from cli.program import Run
from jobledger.v1.engine_service_pb2 import IssuedToken, TokenInfo
from sdk.fake_server import TOKEN, FakeServer


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
