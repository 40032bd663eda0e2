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


LOADING = """
LUA_INIT LUA_INIT_5_4 LUA_PATH LUA_CPATH_5_3 PHPRC PHP_INI_SCAN_DIR R_PROFILE R_PROFILE_USER R_ENVIRON_USER R_LIBS
R_LIBS_USER JULIA_LOAD_PATH JULIA_PROJECT JULIA_DEPOT_PATH CLASSPATH JAVA_TOOL_OPTIONS _JAVA_OPTIONS JDK_JAVA_OPTIONS
JAVA_HOME MAVEN_OPTS DOTNET_STARTUP_HOOKS DOTNET_ADDITIONAL_DEPS CORECLR_PROFILER_PATH PERL5SHELL PERL5OPT PERL5DB
RUBYOPT RUBYLIB GEM_PATH BUNDLE_GEMFILE NODE_OPTIONS NODE_PATH npm_config_script_shell PYTHONINSPECT FPATH
PROMPT_COMMAND XDG_CONFIG_HOME MAKEFLAGS TAR_OPTIONS RSYNC_RSH MANPAGER LESSOPEN GIT_PAGER SSH_ASKPASS AWKPATH
TCLLIBPATH GUILE_LOAD_PATH EMACSLOADPATH VIMINIT ERL_AFLAGS OCTAVE_SITE_INITFILE MONO_PATH GOFLAGS PIP_INDEX_URL
OPENSSL_CONF OMPI_MCA_plm_rsh_agent UV_INDEX_URL CARGO_HOME KUBECONFIG PSQLRC
"""
ORDINARY = """
SEED LC_ALL LANG TZ MODEL_PATH DATA_PATH OUTPUT_PATH CUDA_VISIBLE_DEVICES OMP_NUM_THREADS NCCL_DEBUG NODE_ENV
PYTHONHASHSEED PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE PYTHONUTF8 JULIA_NUM_THREADS R_SEED R_MAX_VSIZE PHP_MODE
DOTNET_gcServer GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL PERL_HASH_SEED RUBY_YJIT_ENABLE GOMAXPROCS GOGC LUA LESSON
UV_THREADPOOL_SIZE MAX_PAGES JAVASCRIPT EDITION HOMEPAGE TERM USER OPTIONS XDG_SESSION_ID MATLAB_SEED OCTAVE_SEED
"""


@pytest.mark.parametrize("name", LOADING.split())
def test_no_variable_by_which_code_is_loaded_is_the_callers(name: str) -> None:
    with pytest.raises(JobTypeError, match=rf"t\.allow: with {name} "):
        job_types_of({"t": {**GOOD, "allow": [f"env.{name}"]}})


def test_ordinary_variables_may_be_the_callers() -> None:
    [declared] = job_types_of({"t": {**GOOD, "allow": [f"env.{name}" for name in ORDINARY.split()]}}).declared.values()
    assert declared.allow == {f"env.{name}" for name in ORDINARY.split()}


@pytest.mark.parametrize(
    ("command", "is_refused"),
    [
        (["python3", "-m", "train"], True),
        (["python3", "-u", "-X", "dev", "-c", "import train"], True),
        (["nice", "/usr/bin/python3.11-dbg", "-um", "train"], True),
        (["python3", "-P", "-m", "train"], False),
        (["python3", "-W", "ignore", "-Im", "train"], False),
        (["python3", "-X", "Pm", "-m", "train"], True),
        (["python3", "/srv/train.py", "-m", "x"], False),
        (["sh", "-c", "exec train"], False),
        (["train", "-m", "x"], False),
    ],
)
def test_no_module_is_loaded_from_a_directory_that_callers_choose(command: list[str], is_refused: bool) -> None:
    """`python3 -m` and `-c` look for modules in the working directory first."""
    job_types_of({"t": {"command": command}})
    declaration = {"t": {"command": command, "allow": ["working_dir"]}}
    if is_refused:
        with pytest.raises(JobTypeError, match=r"t\.allow: with working_dir .*-P"):
            job_types_of(declaration)
    else:
        job_types_of(declaration)


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
