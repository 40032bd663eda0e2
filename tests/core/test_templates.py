"""What stands in a place of a command never becomes another argument, an option, or a program."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.templates import Place, Template, TemplateError

NASTY = st.one_of(
    st.text(),
    st.sampled_from(
        ["", " ", "a b", "$(id)", "`id`", "; rm -rf /", "'", '"', "\n", "{config.b}", "{{", "}}", "*", "--"]
    ),
)
LITERALS = st.text().map(lambda text: text.replace("{", "{{").replace("}", "}}"))
NAMES = ("a", "b", "c-d", "_e")
ELEMENTS = st.lists(
    st.lists(st.one_of(LITERALS, st.sampled_from([f"{{config.{name}}}" for name in NAMES]))).map("".join)
)


def refused(template: Template, config: dict[str, Any]) -> str:
    with pytest.raises(ServiceError) as caught:
        template.filled(config)
    assert caught.value.reason == Reason.ERROR_REASON_VALIDATION
    return caught.value.fields[0].field


@given(ELEMENTS, st.fixed_dictionaries(dict.fromkeys(NAMES, NASTY)))
def test_filling_in_keeps_every_element_and_every_value_as_they_are(rest: list[str], config: dict[str, str]) -> None:
    every_dash = frozenset(f"config.{name}" for name in NAMES)
    template = Template.of(["program", *rest], every_dash)
    argv = template.filled(config)
    assert len(argv) == 1 + len(rest)
    for source, parts, filled in zip(["program", *rest], template.elements, argv, strict=True):
        values = [config[part.path[0]] if isinstance(part, Place) else part for part in parts]
        assert filled == "".join(values)
        assert all(value in filled for value in values)
        if not any(isinstance(part, Place) for part in parts):
            assert filled == source.replace("{{", "{").replace("}}", "}")


@given(st.lists(NASTY, min_size=1, max_size=3))
def test_no_value_makes_an_option_of_an_element_that_begins_with_it(values: list[str]) -> None:
    names = [f"v{index}" for index in range(len(values))]
    template = Template.of(["program", "".join(f"{{config.{name}}}" for name in names)])
    config = dict(zip(names, values, strict=True))
    if "".join(values).startswith("-"):
        assert refused(template, config) in {f"spec.config.{name}" for name in names}
    else:
        assert template.filled(config)[1] == "".join(values)


def test_a_dash_may_stand_where_the_declaration_says_so() -> None:
    source = ["scale", "{config.factor}", "{config.name}.csv", "--by={config.name}"]
    template = Template.of(source, frozenset({"config.factor"}))
    assert template.filled({"factor": -2.5, "name": "a"}) == ["scale", "-2.5", "a.csv", "--by=a"]
    assert refused(template, {"factor": 1, "name": "-rf"}) == "spec.config.name"
    assert refused(Template.of(["scale", "{config.factor}"]), {"factor": -2.5}) == "spec.config.factor"
    assert Template.of(["p", "--by={config.name}"]).filled({"name": "-rf"}) == ["p", "--by=-rf"]


def test_numbers_and_booleans_are_written_as_in_json() -> None:
    template = Template.of(["p", "{config.a}", "{config.deep.er}"])
    for value in (0, 10, 0.1, 1e300, True, False):
        assert template.filled({"a": value, "deep": {"er": "x"}}) == ["p", json.dumps(value), "x"]


@pytest.mark.parametrize("config", [{}, {"a": None}, {"a": {}}, {"a": []}, {"a": {"b": 1}}])
def test_what_is_missing_or_no_single_value_is_named(config: dict[str, Any]) -> None:
    assert refused(Template.of(["p", "{config.a}"]), config) == "spec.config.a"
    assert refused(Template.of(["p", "{config.a.x}"]), config) == "spec.config.a.x"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ([], "must name a program"),
        ([""], "must name a program"),
        (["{config.a}"], r"command\[0\]"),
        (["/opt/{config.a}/run"], r"command\[0\]"),
        (["./run"], "absolute"),
        (["p", "{config}"], r"command\[1\]"),
        (["p", "{model}"], r"command\[1\]"),
        (["p", "{config.a b}"], r"command\[1\]"),
        (["p", "x", "{"], r"command\[2\]"),
        (["p", "}"], r"command\[1\]"),
        (["p", "{config.a"], r"command\[1\]"),
        (["sh", "-c", "echo {config.a}"], r"command\[2\].*program"),
        (["/bin/bash", "-eu", "-lc", "{config.a}"], r"command\[3\]"),
        (["python3", "{config.a}"], r"command\[1\]"),
        (["python3.11", "-m", "{config.a}"], r"command\[2\]"),
        (["node", "--eval={config.a}"], r"command\[1\]"),
        (["perl", "-e{config.a}"], r"command\[1\]"),
        (["env", "A=b", "{config.a}", "p"], r"command\[2\]"),
        (["nohup", "{config.a}"], r"command\[1\]"),
        (["busybox", "sh", "-c", "{config.a}"], r"command\[3\]"),
        (["sed", "s/x/{config.a}/", "f"], r"command\[1\]"),
        (["env", "-i", "nice", "bash", "-c", "{config.a}"], r"command\[5\]"),
    ],
)
def test_what_would_let_a_value_be_a_program_is_no_template(source: list[str], told: str) -> None:
    with pytest.raises(TemplateError, match=told):
        Template.of(source)


# Each with a value in what somebody runs, and the index of that element.
RUN = [
    (["bash", "-euo", "pipefail", "-c", "echo {config.a} | cat"], 4),
    (["bash", "-o", "pipefail", "-c", "echo {config.a}"], 4),
    (["bash", "--rcfile", "/x", "-c", "{config.a}"], 4),
    (["bash", "-O", "extglob", "-c", "{config.a}"], 4),
    (["bash", "-c", "-x", "{config.a}"], 3),
    (["bash", "-lc", "{config.a}"], 2),
    (["bash", "-cx", "{config.a}"], 2),
    (["sh", "-ec{config.a}"], 1),
    (["sh", "-s", "{config.a}"], 2),
    (["sh", "-c", 'exec "$0" "$@"', "sh", "-c", "{config.a}"], 5),
    (["sh", "-c", 'exec "$@"', "_", "sh", "-c", "{config.a}"], 6),
    (["rbash", "-c", "{config.a}"], 2),
    (["tcsh", "-c", "text", "-c", "{config.a}"], 4),
    (["nice", "-n", "5", "bash", "-o", "pipefail", "-c", "{config.a}"], 7),
    (["ionice", "-c3", "bash", "-lc", "{config.a}"], 4),
    (["timeout", "-k", "5", "10", "{config.a}"], 4),
    (["timeout", "10", "bash", "-c", "{config.a}"], 4),
    (["chronic", "bash", "-c", "{config.a}"], 3),
    (["unknown", "--", "/opt/bin/bash5.2", "-c", "{config.a}"], 4),
    (["python3", "-X", "dev", "-c", "print('{config.a}')"], 4),
    (["python3", "-W", "ignore", "{config.a}"], 3),
    (["python3", "-m{config.a}"], 1),
    (["python3", "-", "{config.a}"], 2),
    (["python3", "-m", "timeit", "{config.a}"], 3),
    (["perl", "-I", "/x", "-e", "{config.a}"], 4),
    (["perl", "-e", "text", "-e", "{config.a}"], 4),
    (["node", "-r", "x", "-e", "{config.a}"], 4),
    (["Rscript", "-e", "{config.a}"], 2),
    (["env", "-S{config.a}"], 1),
    (["env", "-S", "bash -c", "{config.a}"], 3),
    (["/usr/bin/env", "-u", "X", "bash", "-c", "{config.a}"], 5),
    (["env", "LD_PRELOAD={config.a}", "p"], 1),
    (["env", "BASH_ENV={config.a}", "bash", "/srv/x.sh"], 1),
    (["flock", "/l", "sh", "-c", "{config.a}"], 4),
    (["su", "-c", "{config.a}"], 2),
    (["docker", "run", "img", "sh", "-c", "{config.a}"], 5),
    (["ssh", "host", "run {config.a}"], 2),
    (["pwsh", "-c", "{config.a}"], 2),
    (["find", "/x", "-exec", "{config.a}", ";"], 3),
    (["make", "-f", "{config.a}"], 2),
    (["tar", "-I{config.a}"], 1),
    (["uv", "run", "{config.a}"], 2),
    (["/lib64/ld-linux-x86-64.so.2", "{config.a}"], 1),
    (["python3.11-dbg", "-c", "{config.a}"], 2),
    (["/usr/bin/python3.13t", "-c", "{config.a}"], 2),
    (["python3-intel64", "-c", "{config.a}"], 2),
    (["pypy3.10-c", "-c", "{config.a}"], 2),
    (["perl5.36-x86_64-linux-gnu", "-e", "{config.a}"], 2),
    (["luajit-2.1.0-beta3", "-e", "{config.a}"], 2),
    (["bash-static", "-c", "{config.a}"], 2),
    (["busybox.static", "sh", "-c", "{config.a}"], 3),
    (["nc.traditional", "-e", "{config.a}"], 2),
    (["sudo-rs", "{config.a}"], 1),
    (["su-rs", "-c", "{config.a}"], 2),
    (["mariadb", "-e", "{config.a}"], 2),
    (["gtimeout", "10", "{config.a}"], 2),
    (["gtimeout", "10", "sh", "-c", "{config.a}"], 4),
    (["genv", "LD_PRELOAD={config.a}", "p"], 1),
    (["gxargs", "{config.a}"], 1),
    (["gfind", "/x", "-exec", "{config.a}", ";"], 3),
    (["gtar", "-I{config.a}"], 1),
    (["bsdtar", "--use-compress-program={config.a}"], 1),
    (["mpirun", "-n", "2", "{config.a}"], 3),
    (["mpirun.openmpi", "{config.a}"], 1),
    (["mpiexec.hydra", "{config.a}"], 1),
    (["torchrun", "{config.a}"], 1),
    (["accelerate", "launch", "{config.a}"], 2),
    (["python3", "-m", "torch.distributed.run", "{config.a}"], 3),
    (["python3", "-um", "torch.distributed.launch", "{config.a}"], 3),
    (["python3", "-m", "pytest", "{config.a}"], 3),
    (["python3", "-m", "accelerate.commands.launch", "{config.a}"], 3),
    (["xvfb-run", "-a", "{config.a}"], 2),
    (["dbus-run-session", "--", "{config.a}"], 2),
    (["tini", "--", "{config.a}"], 2),
    (["dumb-init", "{config.a}"], 1),
    (["sbatch", "--wrap={config.a}"], 1),
    (["srun", "{config.a}"], 1),
    (["octave", "--eval", "{config.a}"], 2),
    (["vim.basic", "-c", "{config.a}"], 2),
    (["php8.2-cgi", "-d", "{config.a}"], 2),
    (["octave-cli-8.4.0", "--eval", "{config.a}"], 2),
    (["env", "LUA_INIT={config.a}", "lua", "/srv/x.lua"], 1),
]


@pytest.mark.parametrize(("source", "index"), RUN, ids=[" ".join(source) for source, _ in RUN])
def test_no_option_hides_from_what_a_program_runs(source: list[str], index: int) -> None:
    with pytest.raises(TemplateError, match=rf"command\[{index}\].*program"):
        Template.of(source)


INTERPRETED = st.sampled_from(
    [
        "sh",
        "bash",
        "-c",
        "-o",
        "pipefail",
        "-eu",
        "python3",
        "-m",
        "-X",
        "/srv/x",
        "--",
        "env",
        "A=b",
        "nice",
        "-n",
        "5",
    ]
)


@given(st.lists(INTERPRETED, max_size=6))
def test_nothing_before_a_shell_opens_its_text_to_a_value(before: list[str]) -> None:
    """The two words between may be the text and the name of a shell before it; what has that name is no program."""
    with pytest.raises(TemplateError):
        Template.of(["p", *before, "text", "name", "bash", "-c", "{config.a}"])


def test_arguments_of_a_program_text_may_be_values() -> None:
    named = ["sh", "-c", "x", "bash", "-c", "{config.a}"]
    assert Template.of(named).filled({"a": "id"}) == [*named[:-1], "id"]
    source = ["sh", "-c", 'echo "$1" ${{HOME}}', "sh", "{config.a}"]
    assert Template.of(source).filled({"a": "$(id)"}) == ["sh", "-c", 'echo "$1" ${HOME}', "sh", "$(id)"]
    script = ["python3", "-u", "/srv/train.py", "-c", "{config.a}"]
    assert Template.of(script).filled({"a": "x"}) == [*script[:-1], "x"]
    wrapped = ["env", "MODE={config.a}", "timeout", "{config.a}", "p", "-c", "{config.a}"]
    assert Template.of(wrapped).filled({"a": "x"}) == ["env", "MODE=x", "timeout", "x", "p", "-c", "x"]


# Their names begin as those of programs that run others, or end so.
ORDINARY_NAMES = """
ssh-keygen git-lfs-size node-red node2vec go2rtc make2fs find-duplicates time-series watch-folder script.py make.sh
python.py R.csv sedimentation grep gcc gzip gmin gnice-plot envelope report-2024 awk.txt nodejs-exporter perlin sudoku
make-real watch-basic node-cli php.ini python-docs.html sh-tests R-project sudo.conf bash.rc git.txt docker-gc
shasum shuf bashful dashboard-3 luac rubyist phpstan-report timeouts env2json tartan ffmpeg convert train x86_64-run
"""
ORDINARY = ORDINARY_NAMES.split()


@pytest.mark.parametrize(
    "source",
    [
        ["bash", "-euo", "pipefail", "-c", 'run "$1"', "bash", "{config.a}"],
        ["bash", "-eu", "-o", "pipefail", "/srv/run.sh", "--by={config.a}"],
        ["python3", "-X", "dev", "-W", "ignore", "-m", "train", "{config.a}"],
        ["python3", "-Wignore", "-c", "import sys", "{config.a}"],
        ["env", "-i", "-u", "A", "B=c", "nice", "-n", "5", "train", "{config.a}"],
        ["timeout", "-k", "5", "10", "perl", "/srv/x.pl", "{config.a}"],
        ["awk", "text", "{config.a}"],
        ["stdbuf", "-oL", "nohup", "convert", "--", "{config.a}"],
        ["gtimeout", "10", "train", "{config.a}"],
        ["python3.11-dbg", "-u", "/srv/x.py", "{config.a}"],
        ["python3", "-m", "tracer", "{config.a}"],
        *([name, "{config.a}"] for name in ORDINARY),
    ],
    ids=" ".join,
)
def test_what_stands_behind_a_script_or_a_text_is_an_argument(source: list[str]) -> None:
    assert Template.of(source).filled({"a": "x"}) == [element.replace("{config.a}", "x") for element in source]
