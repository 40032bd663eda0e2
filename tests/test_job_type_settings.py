"""Declarations of job types: whatever is wrong with one is told before the server starts, by type and field."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jobledger_server import main
from jobledger_server.config import Settings, SettingsError, resolve, settings_of
from jobledger_server.core.job_types import JobTypes
from jobledger_server.core.structs import plain
from jobledger_server.core.times import seconds
from jobledger_server.job_type_settings import JobTypeError, job_types_of

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer"}}}
GOOD: dict[str, Any] = {"command": ["p", "{config.a}"], "schema": SCHEMA}
DECLARATION = """
max_running = 2
[job_types.scale]
description = "Scales a picture"
command = ["convert", "--by={config.by}", "--", "{config.picture}"]
allow = ["env.SEED", "limits"]
[job_types.scale.schema]
required = ["picture"]
[job_types.scale.schema.properties]
picture = { type = "string", format = "path" }
by = { type = "number" }
[job_types.scale.defaults]
timeout = "1.5h"
priority = "low"
grace_period = 5
env = { MODE = "fast" }
limits = { cpu_time = "10m", memory_bytes = 268435456 }
inputs = [{ type = "reference", reference = "palette" }]
config = { by = 2 }
"""


def settings(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "jobledger.toml").write_text(text)
    return settings_of(resolve({}, {}, tmp_path / "jobledger.toml"))


def test_a_declaration_is_read_as_people_write_it(tmp_path: Path) -> None:
    scale = settings(tmp_path, DECLARATION).job_types.declared["scale"]
    defaults = scale.defaults
    assert (seconds(defaults.timeout), seconds(defaults.grace_period), defaults.priority) == (5400, 5, 1)
    assert (seconds(defaults.limits.cpu_time), defaults.limits.memory_bytes) == (600, 1 << 28)
    assert (defaults.inputs[0].type, defaults.inputs[0].reference) == (1, "palette")
    assert (plain(defaults.config), dict(defaults.env)) == ({"by": 2}, {"MODE": "fast"})
    assert (scale.description, sorted(scale.allow)) == ("Scales a picture", ["env.SEED", "limits"])


def test_config_show_tells_of_them(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(DECLARATION)
    told = json.loads(CliRunner().invoke(main.config, ["show", "--json", "--config", str(tmp_path / "c.toml")]).output)
    scale = told["job_types"]["value"]["scale"]
    assert scale["command"] == ["convert", "--by={config.by}", "--", "{config.picture}"]
    assert (scale["schema"]["required"], scale["allow"]) == (["picture"], ["env.SEED", "limits"])
    assert (scale["defaults"]["timeout"], scale["defaults"]["config"]) == ("5400s", {"by": 2})
    shown = CliRunner().invoke(main.config, ["show", "--config", str(tmp_path / "c.toml")]).output
    assert [line.split()[1:3] for line in shown.splitlines() if line.startswith("# job_types")] == [
        ["job_types:", "scale"]
    ]


def test_none_is_declared_unless_somebody_does() -> None:
    assert settings_of(resolve({}, {}, None)).job_types == JobTypes()


def test_in_the_environment_they_are_json(tmp_path: Path) -> None:
    declared = resolve({}, {"JOBLEDGER_JOB_TYPES": json.dumps({"t": GOOD})}, None)
    (tmp_path / "c.toml").write_text(
        'job_types.t = { command = ["p", "{config.a}"], schema = { type = "object", '
        'properties = { a = { type = "string" }, n = { type = "integer" } } } }'
    )
    assert settings_of(declared).job_types == settings_of(resolve({}, {}, tmp_path / "c.toml")).job_types
    with pytest.raises(SettingsError, match=r"JSON object.*JOBLEDGER_JOB_TYPES"):
        resolve({}, {"JOBLEDGER_JOB_TYPES": "train"}, None)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("command", {}, "'command'"),
        ("Train", {}, "'Train'"),
        ("a" * 65, {}, "lower-case"),
        ("t", {"commands": []}, r"t\.commands"),
        ("t", {"description": 1}, r"t\.description"),
        ("t", {"command": "p {config.a}"}, r"t\.command: .*list"),
        ("t", {"command": []}, r"t\.command: .*program"),
        ("t", {"command": ["p", "{config.b}"]}, r"t\.command: \{config\.b\}.*properties"),
        ("t", {"schema": []}, r"t\.schema"),
        ("t", {"command": ["sh", "-c", "{config.a}"]}, r"t\.command\[2\]"),
        ("t", {"schema": {**SCHEMA, "properties": {"a": {"type": "array"}}}}, r"t\.command: \{config\.a\}.*array"),
        ("t", {"schema": {"type": "nonsense"}}, r"t\.schema"),
        ("t", {"schema": {"$ref": "https://example.com"}}, r"t\.schema"),
        ("t", {"may_begin_with_dash": ["config.n"]}, r"t\.may_begin_with_dash"),
        ("t", {"allow": ["command"]}, r"t\.allow: 'command'"),
        ("t", {"allow": ["env"]}, r"t\.allow: 'env'"),
        ("t", {"allow": ["env.*"]}, r"t\.allow"),
        ("t", {"allow": ["env.LD_PRELOAD"]}, r"t\.allow.*LD_PRELOAD"),
        ("t", {"allow": ["env.PATH"]}, r"t\.allow.*PATH"),
        ("t", {"allow": ["env.PYTHONPATH"]}, r"t\.allow.*PYTHONPATH"),
        ("t", {"defaults": []}, r"t\.defaults"),
        ("t", {"defaults": {"command": ["x"]}}, r"t\.defaults\.command"),
        ("t", {"defaults": {"rerun_of": "x"}}, r"t\.defaults\.rerun_of"),
        ("t", {"defaults": {"isolation": "bwrap"}}, r"t\.defaults\.isolation"),
        ("t", {"defaults": {"timeout": "soon"}}, r"t\.defaults\.timeout.*2h"),
        ("t", {"defaults": {"timeout": True}}, r"t\.defaults\.timeout"),
        ("t", {"defaults": {"timeout": 0}}, r"t\.defaults\.timeout"),
        ("t", {"defaults": {"max_attempts": 101}}, r"t\.defaults\.max_attempts"),
        ("t", {"defaults": {"priority": "urgent"}}, r"t\.defaults\.priority.*low"),
        ("t", {"defaults": {"limits": {"memory": 1}}}, r"t\.defaults\.limits"),
        ("t", {"defaults": {"inputs": [{"reference": "x"}]}}, r"t\.defaults\.inputs"),
        ("t", {"defaults": {"env": {"A-B": "1"}}}, r"t\.defaults\.env"),
        ("t", {"defaults": {"config": {"n": "three"}}}, r"t\.defaults\.config\.n"),
    ],
)
def test_what_can_not_be_is_told_by_type_and_field(name: str, change: dict[str, Any], told: str) -> None:
    with pytest.raises(JobTypeError, match=told):
        job_types_of({name: {**GOOD, **change}})


def test_what_gets_into_a_command_needs_a_schema() -> None:
    with pytest.raises(JobTypeError, match=r"t\.command: \{config\.a\}"):
        job_types_of({"t": {"command": ["p", "{config.a}"]}})
    with pytest.raises(JobTypeError, match=r"t\.defaults\.config"):
        job_types_of({"t": {"command": ["p"], "defaults": {"config": {"a": 1}}}})


@pytest.mark.parametrize("value", ["train", ["train"], {"t": "x"}])
def test_a_declaration_is_a_table(value: Any) -> None:
    with pytest.raises(JobTypeError):
        job_types_of(value)


@pytest.mark.parametrize(
    ("defaults", "told"),
    [
        ('working_dir = "/etc"', "scale.defaults: working_dir"),
        ('env = { KEY = "secret:env:NOT_ALLOWED" }', "scale.defaults: env"),
        ('env = { JOBLEDGER_JOB_ID = "x" }', "scale.defaults: env"),
        ('inputs = [{ type = "file", file_path = "/etc/passwd" }]', "scale.defaults: inputs"),
    ],
)
def test_what_it_refers_to_is_held_against_the_other_settings(tmp_path: Path, defaults: str, told: str) -> None:
    text = f'[job_types.scale]\ncommand = ["true"]\n[job_types.scale.defaults]\n{defaults}\n'
    with pytest.raises(SettingsError) as caught:
        settings(tmp_path, text)
    assert told in str(caught.value)


def test_up_does_not_start_with_one_that_can_not_be(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[job_types.t]\ncommand = ["{config.a}"]\n')
    ended = CliRunner().invoke(main.up, ["--config", str(tmp_path / "c.toml"), "--data-dir", str(tmp_path / "data")])
    assert ended.exit_code == 2
    assert "t.command[0]" in ended.output
    assert not (tmp_path / "data" / "jobledger.db").exists()
