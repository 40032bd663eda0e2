"""Where the SDK looks for the server and the token."""

import errno
import json
import os
from pathlib import Path

import pytest
from jobledger import SetupError, resolve_endpoint
from jobledger.endpoint import host_and_port, is_local


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The data directory of a server that runs on this machine."""
    (tmp_path / "token").write_text("jl_local_secret\n")
    (tmp_path / "token").chmod(0o600)
    endpoints = {
        "pid": 1,
        "started_at": "2026-01-02T03:04:05.000000Z",
        "grpc": "127.0.0.1:50051",
        "http": "http://127.0.0.1:8080",
        "unix": None,
        "token_file": str(tmp_path / "token"),
    }
    (tmp_path / "endpoints.json").write_text(json.dumps(endpoints))
    return tmp_path


def test_a_local_server_is_found_by_its_data_directory(data_dir: Path) -> None:
    found = resolve_endpoint(data_dir=data_dir, environ={})
    assert (found.target, found.token, found.http) == ("127.0.0.1:50051", "jl_local_secret", "http://127.0.0.1:8080")
    assert found.token_source == str(data_dir / "token")


def test_arguments_rule_over_the_environment(data_dir: Path) -> None:
    environ = {"JOBLEDGER_TARGET": "127.0.0.1:1", "JOBLEDGER_TOKEN": "theirs"}
    assert resolve_endpoint("127.0.0.1:2", token="mine", environ=environ).target == "127.0.0.1:2"
    found = resolve_endpoint(data_dir=data_dir, token="mine", environ=environ)
    assert (found.target, found.token) == ("127.0.0.1:50051", "mine")


@pytest.mark.parametrize("variable", ["JOBLEDGER_TOKEN", "JOBLEDGER_TOKEN_FILE"])
def test_a_token_that_was_named_goes_before_one_that_was_found(data_dir: Path, variable: str) -> None:
    """Else somebody who tries what a lesser token may do would do it as admin."""
    (data_dir / "lesser").write_text("jl_lesser_secret\n")
    named = {"JOBLEDGER_TOKEN": "jl_lesser_secret", "JOBLEDGER_TOKEN_FILE": str(data_dir / "lesser")}[variable]
    found = resolve_endpoint(data_dir=data_dir, environ={variable: named, "JOBLEDGER_TARGET": "127.0.0.1:1"})
    assert (found.target, found.token) == ("127.0.0.1:50051", "jl_lesser_secret")


def test_the_environment_rules_over_a_local_server(data_dir: Path) -> None:
    environ = {"JOBLEDGER_TARGET": "127.0.0.1:1", "JOBLEDGER_TOKEN": "t", "JOBLEDGER_DATA_DIR": str(data_dir)}
    found = resolve_endpoint(environ=environ)
    assert (found.target, found.token, found.token_source) == ("127.0.0.1:1", "t", "JOBLEDGER_TOKEN")


def test_a_token_file_holds_the_token_alone(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("  jl_a_b\n")
    environ = {"JOBLEDGER_TARGET": "127.0.0.1:1", "JOBLEDGER_TOKEN_FILE": str(tmp_path / "t")}
    assert resolve_endpoint(environ=environ).token == "jl_a_b"


def test_a_local_servers_token_is_never_taken_for_another_target(data_dir: Path) -> None:
    """Else a mistyped or hostile address would be handed the key to this machine's server."""
    with pytest.raises(SetupError, match="No token") as failure:
        resolve_endpoint("127.0.0.1:9999", environ={"JOBLEDGER_DATA_DIR": str(data_dir)})
    assert failure.value.error_code == "E_AUTH_MISSING"


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_target_elsewhere_is_not_held_up_by_what_lies_here(data_dir: Path, content: str) -> None:
    (data_dir / "endpoints.json").write_text(content)
    environ = {"JOBLEDGER_DATA_DIR": str(data_dir), "JOBLEDGER_TARGET": "jobs.example.org:443"}
    found = resolve_endpoint(token="mine", environ=environ)
    assert (found.target, found.token, found.http, found.cert_sha256) == ("jobs.example.org:443", "mine", None, None)
    with pytest.raises(SetupError, match="No token"):
        resolve_endpoint(environ=environ)


def test_the_data_directory_of_another_user_holds_up_no_target(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a service is, which JOBLEDGER_DATA_DIR names for its own commands."""

    def closed(path: Path, *_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", closed)
    environ = {"JOBLEDGER_DATA_DIR": str(data_dir), "JOBLEDGER_TOKEN": "mine"}
    for target in ("127.0.0.1:50051", "jobs.example.org:443"):
        assert resolve_endpoint(target, environ=environ).token == "mine"
    with pytest.raises(SetupError, match="Permission denied"):
        resolve_endpoint(environ=environ)


def test_a_unix_socket_serves_where_there_is_no_port(data_dir: Path) -> None:
    endpoints = json.loads((data_dir / "endpoints.json").read_text())
    (data_dir / "endpoints.json").write_text(
        json.dumps(endpoints | {"grpc": None, "unix": str(data_dir / "run/j.sock")})
    )
    found = resolve_endpoint(data_dir=data_dir, environ={})
    assert (found.target, found.token) == (f"unix:{data_dir}/run/j.sock", "jl_local_secret")


def test_the_socket_that_nobody_else_can_have_made_comes_before_the_port(data_dir: Path) -> None:
    endpoints = json.loads((data_dir / "endpoints.json").read_text())
    (data_dir / "endpoints.json").write_text(json.dumps(endpoints | {"unix": str(data_dir / "run/j.sock")}))
    assert resolve_endpoint(data_dir=data_dir, environ={}).target == f"unix:{data_dir}/run/j.sock"
    found = resolve_endpoint(data_dir=data_dir, environ={}, cert_file=Path("/c.pem"), key_file=Path("/c.key"))
    assert (found.target, found.client) == ("127.0.0.1:50051", (Path("/c.pem"), Path("/c.key")))


def test_files_of_the_environment_are_for_other_servers(data_dir: Path) -> None:
    """With them a local server without TLS could not be reached."""
    environ = {f"JOBLEDGER_{name}_FILE": f"/{name}" for name in ("CA", "CERT", "KEY")}
    here = resolve_endpoint(data_dir=data_dir, environ=environ)
    assert (here.ca_file, here.client) == (None, None)
    there = resolve_endpoint("jobs.example.org:443", environ=environ)
    assert (there.token, there.ca_file, there.client) == ("", Path("/CA"), (Path("/CERT"), Path("/KEY")))


def test_without_a_server_the_message_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="jobledger up"):
        resolve_endpoint(data_dir=tmp_path, environ={})


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_damaged_endpoints_file_is_named_in_the_message(tmp_path: Path, content: str) -> None:
    (tmp_path / "endpoints.json").write_text(content)
    with pytest.raises(SetupError, match=r"endpoints\.json"):
        resolve_endpoint(data_dir=tmp_path, environ={})


@pytest.mark.parametrize("content", [None, "\n"])
def test_a_token_file_that_is_missing_or_empty_is_named_in_the_message(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SetupError, match="token"):
        resolve_endpoint("127.0.0.1:1", environ={"JOBLEDGER_TOKEN_FILE": str(path)})


def test_an_endpoint_does_not_show_its_token() -> None:
    assert "jl_a_b" not in repr(resolve_endpoint("127.0.0.1:1", token="jl_a_b", environ={}))


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:50051", True),
        ("127.8.9.1:1", True),
        ("[::1]:50051", True),
        ("localhost:50051", True),
        ("dns:///localhost:50051", True),
        ("unix:/run/j.sock", True),
        ("10.0.0.1:50051", False),
        ("localhost.example.com:50051", False),
        ("jobs.example.com", False),
        ("0.0.0.0:50051", False),
    ],
)
def test_only_loopback_and_sockets_are_local(target: str, local: bool) -> None:
    assert is_local(target) is local


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("h:1", ("h", 1)),
        ("h", ("h", 443)),
        ("[::1]:5", ("::1", 5)),
        ("[::1]", ("::1", 443)),
        ("::1", ("::1", 443)),
        ("ipv4:1.2.3.4:5", ("1.2.3.4", 5)),
    ],
)
def test_a_target_has_a_host_and_a_port(target: str, parts: tuple[str, int]) -> None:
    assert host_and_port(target) == parts
