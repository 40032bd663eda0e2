"""Settings: flags over environment over file over defaults, and each error names what is wrong and where."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jobledger_server import main
from jobledger_server.access.certificates import Peer
from jobledger_server.access.oidc_settings import oidc_of
from jobledger_server.config import (
    PARSERS,
    Limit,
    Setting,
    Settings,
    SettingsError,
    default_data_dir,
    resolve,
    settings_of,
)
from jobledger_server.core.retention import retention_of
from jobledger_server.job_type_settings import job_types_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobledger.toml"


def settings(
    flags: dict[str, Any] | None = None, environment: dict[str, str] | None = None, file: Path | None = None
) -> Settings:
    return settings_of(resolve(flags or {}, environment or {}, file))


def found(name: str, settings: list[Setting]) -> tuple[Any, str]:
    return next((setting.value, setting.source) for setting in settings if setting.name == name)


def test_flags_win_over_environment_over_file_over_defaults(file: Path) -> None:
    file.write_text("max_running = 3\n")
    environment, flags = {"JOBLEDGER_MAX_RUNNING": "4"}, {"max_running": 5}
    assert found("max_running", resolve(flags, environment, file)) == (5, "flag")
    assert found("max_running", resolve({"max_running": None}, environment, file)) == (4, "JOBLEDGER_MAX_RUNNING")
    assert found("max_running", resolve({}, {}, file)) == (3, str(file))
    assert found("max_running", resolve({}, {}, None)) == (os.cpu_count(), "default")


def test_a_flag_that_says_no_wins_too() -> None:
    environment = {"JOBLEDGER_STOP_JOBS": "true", "JOBLEDGER_GRPC_PORT": "7"}
    assert not settings({"stop_jobs": False}, environment).stop_jobs
    assert settings({"grpc_port": 0}, environment).grpc_port == 0


def test_config_show_takes_what_up_takes(tmp_path: Path) -> None:
    shown = CliRunner().invoke(main.config, ["show", "--json", "--data-dir", str(tmp_path), "--max-running", "3"])
    told = json.loads(shown.output)
    assert told["data_dir"] == {"value": str(tmp_path), "source": "flag"}
    assert told["max_running"] == {"value": 3, "source": "flag"}
    settable = {parameter.name for parameter in main.up.params}
    assert settable == {parameter.name for parameter in main.show.params} - {"as_json"}


def test_what_config_show_prints_is_a_file_that_sets_the_same(file: Path, tmp_path: Path) -> None:
    file.write_text("stop_jobs = true\nsecrets = ['A']\nhost = 'localhost'\n[queue_limits]\ngpu = 2\n")
    shown = CliRunner().invoke(main.config, ["show", "--config", str(file), "--data-dir", str(tmp_path)])
    assert "# tls_key is not set" in shown.output
    assert re.search(r"^stop_jobs = true +# ", shown.output, re.MULTILINE)
    given = settings({"data_dir": tmp_path}, file=file)
    file.write_text(shown.output)
    assert settings(file=file) == given


ENVIRONMENT = {
    "JOBLEDGER_DATA_DIR": "/data",
    "JOBLEDGER_HOST": "localhost",
    "JOBLEDGER_GRPC_PORT": "1",
    "JOBLEDGER_HTTP_PORT": "2",
    "JOBLEDGER_INSECURE_BIND": "yes",
    "JOBLEDGER_UNIX_SOCKET": "no",
    "JOBLEDGER_TLS_CERTIFICATE": "/tls/server.pem",
    "JOBLEDGER_TLS_KEY": "/tls/server.key",
    "JOBLEDGER_TLS_CLIENT_CA": "/tls/ca.pem",
    "JOBLEDGER_PEERS": '{"CN=w,O=Acme": {"scopes": ["worker"], "workspaces": ["a", "b"]}}',
    "JOBLEDGER_MAX_RUNNING": "3",
    "JOBLEDGER_QUEUE_LIMITS": "gpu=2,a.b-c=1",
    "JOBLEDGER_LABEL_LIMITS": "tenant=3,gpu=a=100=1",
    "JOBLEDGER_ISOLATION": "landlock",
    "JOBLEDGER_OIDC": '{"issuer": "https://id.example", "audience": "j", "scope_map": {"ops": ["admin"]}}',
    "JOBLEDGER_JOB_TYPES": '{"hello": {"command": ["echo", "hello"]}}',
    "JOBLEDGER_SIGNER": "sign --key 'a b'",
    "JOBLEDGER_SIGNER_KEY": "/signer.pem",
    "JOBLEDGER_ROOTS": "/a,/b",
    "JOBLEDGER_SECRETS": "API_TOKEN,/run/secrets",
    "JOBLEDGER_RETENTION": "events=36h,logs.info=1d,job_dirs.failed=never",
    "JOBLEDGER_WARN_FREE_BYTES": "20",
    "JOBLEDGER_MIN_FREE_BYTES": "10",
    "JOBLEDGER_STOP_JOBS": "yes",
    "JOBLEDGER_TOKEN_STREAMS": "7",
    "JOBLEDGER_TOKEN_CALLS": "8",
    "JOBLEDGER_TOKEN_RATE": "0",
    "JOBLEDGER_TOKEN_BURST": "9",
    "JOBLEDGER_AUDIT_READS": "true",
    "JOBLEDGER_PUBLIC_METRICS": "1",
    "JOBLEDGER_ALLOWED_HOSTS": "a.example,b.example",
    "JOBLEDGER_ALLOWED_ORIGINS": "https://a.example",
}

TOML = """
        data_dir = "/data"
        host = "localhost"
        grpc_port = 1
        http_port = 2
        insecure_bind = true
        unix_socket = false
        tls_certificate = "/tls/server.pem"
        tls_key = "/tls/server.key"
        tls_client_ca = "/tls/ca.pem"
        peers = {"CN=w,O=Acme" = {scopes = ["worker"], workspaces = ["a", "b"]}}
        max_running = 3
        isolation = "landlock"
signer = "sign --key 'a b'"
signer_key = "/signer.pem"
        roots = ["/a", "/b"]
        secrets = ["API_TOKEN", "/run/secrets"]
        warn_free_bytes = 20
        min_free_bytes = 10
        stop_jobs = true
        public_metrics = true
        token_streams = 7
        token_calls = 8
        token_rate = 0
        token_burst = 9
        audit_reads = true
        allowed_hosts = ["a.example", "b.example"]
        allowed_origins = ["https://a.example"]
        [oidc]
        issuer = "https://id.example"
        audience = "j"
        scope_map = {ops = ["admin"]}
        [job_types.hello]
        command = ["echo", "hello"]
        [queue_limits]
        gpu = 2
        "a.b-c" = 1
        [label_limits]
        tenant = 3
        "gpu=a=100" = 1
        [retention]
        events = "36h"
        logs.info = "1d"
        [retention.job_dirs]
        failed = "never"
"""


def test_every_setting_can_be_set_in_every_way(file: Path) -> None:
    """In the environment as text, in the file as TOML has it."""
    file.write_text(TOML)
    expected = Settings(
        data_dir=Path("/data"),
        host="localhost",
        grpc_port=1,
        http_port=2,
        insecure_bind=True,
        unix_socket=False,
        tls_certificate=Path("/tls/server.pem"),
        tls_key=Path("/tls/server.key"),
        tls_client_ca=Path("/tls/ca.pem"),
        peers=(Peer(identity="CN=w,O=Acme", scopes=("worker",), workspaces=("a", "b")),),
        max_running=3,
        queue_limits=(Limit("gpu", 2), Limit("a.b-c", 1)),
        label_limits=(Limit("tenant", 3), Limit("gpu=a=100", 1)),
        isolation="landlock",
        oidc=oidc_of({"issuer": "https://id.example", "audience": "j", "scope_map": {"ops": ["admin"]}}),
        job_types=job_types_of({"hello": {"command": ["echo", "hello"]}}),
        signer="sign --key 'a b'",
        signer_key=Path("/signer.pem"),
        roots=(Path("/a"), Path("/b")),
        secrets=("API_TOKEN", "/run/secrets"),
        retention=retention_of([("events", "36h"), ("logs.info", "1d"), ("job_dirs.failed", "never")]),
        warn_free_bytes=20,
        min_free_bytes=10,
        stop_jobs=True,
        public_metrics=True,
        token_streams=7,
        token_calls=8,
        token_rate=0,
        token_burst=9,
        audit_reads=True,
        allowed_hosts=("a.example", "b.example"),
        allowed_origins=("https://a.example",),
    )
    assert settings(environment=ENVIRONMENT) == expected
    assert settings(file=file) == expected
    assert "default" not in {setting.source for setting in resolve({}, ENVIRONMENT, None)}


def test_there_is_a_parser_for_the_kind_of_every_setting() -> None:
    for name, kind in Settings.__annotations__.items():
        assert kind in PARSERS, name


def test_paths_are_absolute_and_know_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/op")
    monkeypatch.chdir(tmp_path)
    given = settings({"data_dir": "data"}, {"JOBLEDGER_ROOTS": "~/in,out"})
    assert given.data_dir == tmp_path / "data"
    assert given.roots == (Path("/home/op/in"), tmp_path / "out")


def test_without_a_word_data_goes_where_the_platform_keeps_state(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings().data_dir == default_data_dir()
    assert default_data_dir().name == "jobledger"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRPC_PORT", "many"),
        ("GRPC_PORT", ""),
        ("GRPC_PORT", "65536"),
        ("HTTP_PORT", "-1"),
        ("HTTP_PORT", "8080.5"),
        ("MAX_RUNNING", "0"),
        ("QUEUE_LIMITS", "gpu"),
        ("QUEUE_LIMITS", "gpu="),
        ("QUEUE_LIMITS", "gpu=two"),
        ("QUEUE_LIMITS", "gpu=0"),
        ("QUEUE_LIMITS", "=2"),
        ("QUEUE_LIMITS", "a b=2"),
        ("QUEUE_LIMITS", "gpu=a100=2"),
        ("QUEUE_LIMITS", "gpu=1,gpu=2"),
        ("LABEL_LIMITS", "tenant=acme"),
        ("LABEL_LIMITS", "=acme=2"),
        ("LABEL_LIMITS", "tenant=-1"),
        ("RETENTION", "events"),
        ("RETENTION", "events=soon"),
        ("RETENTION", "logs=7d"),
        ("RETENTION", "receipts=7d"),
        ("RETENTION", "events=1d,events=2d"),
        ("MIN_FREE_BYTES", "-1"),
        ("WARN_FREE_BYTES", "1GB"),
        ("UNIX_SOCKET", "maybe"),
        ("STOP_JOBS", ""),
        ("HOST", "0.0.0.0"),
        ("HOST", "example.org"),
        ("HOST", ""),
        ("PEERS", "CN=w"),
        ("PEERS", '{"CN=w": {"scopes": []}}'),
        ("ISOLATION", "firejail"),
        ("ROOTS", "~nobody-of-this-name/x"),
        ("SECRETS", "API_TOKEN,run/secrets"),
    ],
)
def test_a_bad_value_is_named_with_its_source(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(environment={f"JOBLEDGER_{name}": value})
    assert str(caught.value).startswith(f"{name.lower()}: ")
    assert f"(from JOBLEDGER_{name})" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tls_certificate": "/c.pem"}, r"tls_certificate: /c\.pem \(from flag\) needs tls_key"),
        ({"tls_key": "/c.key"}, r"tls_key: /c\.key \(from flag\) needs tls_certificate"),
        ({"tls_client_ca": "/ca.pem"}, "tls_client_ca .* of no use without tls_certificate"),
    ],
)
def test_half_of_tls_is_none(given: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        settings(given)


def test_beyond_loopback_takes_tls_or_that_the_risk_is_accepted() -> None:
    tls = {"tls_certificate": "/c.pem", "tls_key": "/c.key"}
    assert settings({"host": "0.0.0.0", **tls}).host == "0.0.0.0"
    assert settings({"host": "example.org", "insecure_bind": True}).host == "example.org"
    with pytest.raises(SettingsError, match="tokens would cross the network in the clear: set tls_certificate"):
        settings({"host": "192.0.2.1"})


@pytest.mark.parametrize(
    "line",
    [
        'grpc_port = "many"',
        "grpc_port = true",
        "max_running = 2.5",
        "host = 5",
        "host = ['127.0.0.1']",
        "roots = 5",
        "roots = [5]",
        "allowed_hosts = [['a']]",
        "unix_socket = 2",
        "queue_limits = 2",
        "queue_limits = {gpu = true}",
        "queue_limits = {gpu = 1.5}",
        "label_limits = [{tenant = 2}]",
        "label_limits = {tenant = {acme = 2}}",
        "data_dir = 1",
        "retention = 7",
        'retention = {logs = "7d"}',
        "retention = {events = 7}",
        "http_port = 1979-05-27",
    ],
)
def test_a_bad_value_in_the_file_is_named_with_the_file(file: Path, line: str) -> None:
    file.write_text(line)
    with pytest.raises(SettingsError, match=re.escape(f"(from {file})")) as caught:
        settings(file=file)
    assert str(caught.value).startswith(f"{line.partition(' ')[0]}: ")


@pytest.mark.parametrize(
    "flags",
    [{"host": "0.0.0.0"}, {"max_running": 0}, {"grpc_port": 70_000}, {"queue_limits": ("gpu",)}],
)
def test_a_bad_flag_is_named_as_one(flags: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"\(from flag\)"):
        settings(flags)


def test_limits_may_be_flags_that_are_repeated_and_none_is_no_flag() -> None:
    environment = {"JOBLEDGER_QUEUE_LIMITS": "gpu=1"}
    assert settings({"queue_limits": ("gpu=2", "cpu=8")}, environment).queue_limits == (("gpu", 2), ("cpu", 8))
    assert settings({"queue_limits": ()}, environment).queue_limits == (("gpu", 1),)


def test_an_unknown_name_in_the_file_is_named(file: Path) -> None:
    file.write_text("max_runing = 3\nprot = 1\n")
    with pytest.raises(SettingsError, match=r"jobledger\.toml: there is no setting max_runing, prot"):
        settings(file=file)


@pytest.mark.parametrize("content", [b"max_running =", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"jobledger\.toml can't be read"):
        settings(file=file)


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"jobledger\.toml can't be read: .*No such file"):
        settings(file=file)
