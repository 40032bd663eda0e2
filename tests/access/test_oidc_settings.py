"""What an operator may say of an issuer, and what each mistake is answered with."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jobledger_server import main
from jobledger_server.access.jwks import KINDS
from jobledger_server.access.oidc_settings import (
    ALGORITHMS,
    DEFAULT_ALGORITHMS,
    OidcSettings,
    OidcSettingsError,
    oidc_of,
)
from jobledger_server.config import Settings, SettingsError, resolve, settings_of

LEAST: dict[str, Any] = {
    "issuer": "https://id.example/realms/jobs",
    "audience": "jobledger",
    "scope_map": {"jobs-admins": ["admin"]},
}


def test_three_settings_are_enough() -> None:
    assert oidc_of(LEAST) == OidcSettings(
        issuer="https://id.example/realms/jobs",
        audiences=("jobledger",),
        scope_map=(("jobs-admins", ("admin",)),),
        algorithms=("RS256", "ES256", "EdDSA"),
        scope_claim="scope",
        workspace_claim="",
    )


def test_all_can_be_said_in_the_file_and_in_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "jobledger.toml"
    file.write_text("""
        [oidc]
        issuer = "http://127.0.0.1:8180"
        audience = ["a", "b"]
        algorithms = ["PS256"]
        jwks_uri = "https://keys.example/keys?v=1"
        scope_claim = "groups"
        workspace_claim = "teams"
        max_lifetime_seconds = 3600
        [oidc.scope_map]
        ops = ["jobs:read", "jobs:cancel"]
    """)
    expected = OidcSettings(
        issuer="http://127.0.0.1:8180",
        audiences=("a", "b"),
        scope_map=(("ops", ("jobs:read", "jobs:cancel")),),
        algorithms=("PS256",),
        jwks_uri="https://keys.example/keys?v=1",
        scope_claim="groups",
        workspace_claim="teams",
        max_lifetime_seconds=3600,
    )
    assert settings_of(resolve({}, {}, file)).oidc == expected
    environment = {"JOBLEDGER_OIDC": json.dumps(LEAST)}
    assert settings_of(resolve({}, environment, file)).oidc == oidc_of(LEAST)
    assert Settings.__dataclass_fields__["oidc"].default is None


def test_config_show_says_whom_the_server_believes() -> None:
    environment = {"JOBLEDGER_OIDC": json.dumps(LEAST)}
    shown = CliRunner().invoke(main.config, ["show", "--json"], env=environment)
    assert json.loads(shown.output)["oidc"] == {
        "value": "https://id.example/realms/jobs for jobledger (scope jobs-admins: admin)",
        "source": "JOBLEDGER_OIDC",
    }


def test_algorithms_are_signatures_alone_and_each_has_its_kind_of_key() -> None:
    assert set(DEFAULT_ALGORITHMS) < set(ALGORITHMS) == set(KINDS)
    assert not any(name.startswith("HS") or name.lower() == "none" for name in ALGORITHMS)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"issuer": None}, "issuer must be given"),
        ({"issuer": "id.example"}, "issuer 'id.example'"),
        ({"issuer": "http://id.example"}, "must begin with https://"),
        ({"issuer": "http://127.0.0.1.id.example"}, "must begin with https://"),
        ({"issuer": "file:///etc/passwd"}, "issuer"),
        ({"issuer": "https://user:pw@id.example"}, "issuer"),
        ({"issuer": "https://id.example/?a=b"}, "no query"),
        ({"issuer": "https://id.example:port"}, "issuer"),
        ({"issuer": "https://id.exa mple"}, "issuer"),
        ({"jwks_uri": "http://keys.example"}, "must begin with https://"),
        ({"jwks_uri": ""}, "jwks_uri must be given"),
        ({"audience": None}, "audience must be given"),
        ({"audience": []}, "audience must be given"),
        ({"audience": [""]}, "audience must be given"),
        ({"audience": 7}, "audience must be given"),
        ({"algorithms": ["HS256"]}, "HS256 can't be used"),
        ({"algorithms": ["none"]}, "none can't be used"),
        ({"algorithms": []}, "algorithms must be given"),
        ({"scope_map": None}, "scope_map must be given"),
        ({"scope_map": {}}, "scope_map must be given"),
        ({"scope_map": {"x": "admin"}}, "scope_map 'x'"),
        ({"scope_map": {"x": ["root"]}}, "scope_map 'x'"),
        ({"scope_claim": ""}, "scope_claim must be given"),
        ({"workspace_claim": ""}, "workspace_claim must be given"),
        ({"max_lifetime_seconds": "1h"}, "max_lifetime_seconds"),
        ({"max_lifetime_seconds": -1}, "max_lifetime_seconds"),
        ({"max_lifetime_seconds": True}, "max_lifetime_seconds"),
        ({"secret": "x"}, "there is no setting secret"),
    ],
)
def test_a_mistake_is_named(change: dict[str, Any], told: str) -> None:
    table = {name: value for name, value in {**LEAST, **change}.items() if value is not None}
    with pytest.raises(OidcSettingsError, match=told):
        oidc_of(table)
    with pytest.raises(SettingsError, match=r"oidc: .*\(from JOBLEDGER_OIDC\)"):
        resolve({}, {"JOBLEDGER_OIDC": json.dumps(table)}, None)


@pytest.mark.parametrize("value", ["", "x", "[]", "7", "null"])
def test_what_is_no_table_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="oidc: "):
        resolve({}, {"JOBLEDGER_OIDC": value}, None)
