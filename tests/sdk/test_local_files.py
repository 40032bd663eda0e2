"""A token goes to no server that another user of the machine has put in the place of one's own."""

import json
import os
from pathlib import Path

import pytest
from jobledger import SetupError, resolve_endpoint
from jobledger.endpoint import is_local
from support.root import only_root


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    (directory / "token").write_text("jl_local_secret\n")
    write(directory)
    for name in ("token", "endpoints.json"):
        (directory / name).chmod(0o600)
    return directory


def write(directory: Path, **changes: str) -> None:
    told = {"grpc": "127.0.0.1:1", "token_file": str(directory / "token"), **changes}
    (directory / "endpoints.json").write_text(json.dumps(told))


def refusal(data_dir: Path, **environ: str) -> str:
    with pytest.raises(SetupError) as caught:
        resolve_endpoint(data_dir=data_dir, environ=environ)
    return caught.value.message


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o1777])
def test_a_directory_that_others_can_write_to_names_no_server(data_dir: Path, mode: int) -> None:
    data_dir.chmod(mode)
    assert refusal(data_dir, JOBLEDGER_TOKEN="mine").endswith(f"chmod go-w {data_dir}")


@pytest.mark.parametrize("target", ["127.0.0.1:1", "10.0.0.1:1"])
def test_nothing_is_taken_from_what_others_can_have_written(data_dir: Path, target: str) -> None:
    """Who wrote it may listen at a port of this machine as well: that such a server is named by hand is no way out."""
    write(data_dir, grpc=target, cert_sha256="0" * 64, http="http://127.0.0.1:2")
    data_dir.chmod(0o777)
    environ = {"JOBLEDGER_DATA_DIR": str(data_dir)}
    with pytest.raises(SetupError):
        resolve_endpoint(target, environ=environ)
    if is_local(target):
        with pytest.raises(SetupError, match="chmod go-w"):
            resolve_endpoint(target, token="mine", environ=environ)
    else:
        found = resolve_endpoint(target, token="mine", environ=environ)
        assert (found.token, found.cert_sha256, found.http) == ("mine", None, None)


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_a_file_that_others_can_write_to_names_no_server(data_dir: Path, mode: int) -> None:
    (data_dir / "endpoints.json").chmod(mode)
    assert refusal(data_dir, JOBLEDGER_TOKEN="mine").endswith(f"chmod go-w {data_dir}/endpoints.json")


def test_a_link_names_no_server(data_dir: Path) -> None:
    (data_dir / "endpoints.json").rename(data_dir / "elsewhere")
    (data_dir / "endpoints.json").symlink_to(data_dir / "elsewhere")
    assert "is a symbolic link" in refusal(data_dir, JOBLEDGER_TOKEN="mine")


def test_a_fifo_holds_nobody_up(data_dir: Path) -> None:
    (data_dir / "endpoints.json").unlink()
    os.mkfifo(data_dir / "endpoints.json", 0o600)
    assert "is not a regular file" in refusal(data_dir)


@pytest.mark.parametrize("name", ["unix", "http_unix", "token_file"])
def test_nothing_is_named_outside_of_the_directory(data_dir: Path, name: str) -> None:
    for place in (str(data_dir.parent / "x"), f"{data_dir}/../x", f"{data_dir}-2/x"):
        write(data_dir, **{name: place})
        assert "which is not in that directory" in refusal(data_dir)
    (data_dir / "out").symlink_to(data_dir.parent)
    write(data_dir, **{name: str(data_dir / "out" / "x")})
    assert "which is not in that directory" in refusal(data_dir)


def test_a_directory_may_be_reached_by_a_link(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(data_dir)
    assert resolve_endpoint(data_dir=tmp_path / "link", environ={}).token == "jl_local_secret"
    write(data_dir, token_file=str(tmp_path / "link" / "token"))
    assert resolve_endpoint(data_dir=data_dir, environ={}).token == "jl_local_secret"


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_servers_token_that_others_can_read_is_not_sent(data_dir: Path, mode: int) -> None:
    """As the server does not start with it."""
    (data_dir / "token").chmod(mode)
    assert refusal(data_dir).endswith(f"chmod 600 {data_dir}/token")


def test_a_token_of_ones_own_choice_that_others_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not refused: files that a container is given are often open to all in it."""
    path = tmp_path / "mine"
    path.write_text("jl_my_secret")
    for mode, warned in ((0o600, False), (0o644, True)):
        path.chmod(mode)
        found = resolve_endpoint("127.0.0.1:1", environ={"JOBLEDGER_TOKEN_FILE": str(path)})
        assert (found.token, f"chmod 600 {path}" in caplog.text) == ("jl_my_secret", warned)
    assert "secret" not in caplog.text


@only_root
def test_root_reads_what_is_all_of_one_user(data_dir: Path) -> None:
    for path in (data_dir, data_dir / "token", data_dir / "endpoints.json"):
        os.chown(path, 12345, -1)
    assert resolve_endpoint(data_dir=data_dir, environ={}).token == "jl_local_secret"
    # Else that user would get the token of another one.
    os.chown(data_dir / "token", 0, -1)
    assert "belongs to user 0" in refusal(data_dir)
    os.chown(data_dir / "endpoints.json", 54321, -1)
    assert "belongs to user 54321" in refusal(data_dir, JOBLEDGER_TOKEN="mine")


@only_root
def test_others_read_only_what_is_theirs(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "belongs to user 0" in refusal(data_dir, JOBLEDGER_TOKEN="mine")
