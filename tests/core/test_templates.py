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


def test_arguments_of_a_program_text_may_be_values() -> None:
    source = ["sh", "-c", 'echo "$1" ${{HOME}}', "sh", "{config.a}"]
    assert Template.of(source).filled({"a": "$(id)"}) == ["sh", "-c", 'echo "$1" ${HOME}', "sh", "$(id)"]
    script = ["python3", "-u", "/srv/train.py", "-c", "{config.a}"]
    assert Template.of(script).filled({"a": "x"}) == [*script[:-1], "x"]
    wrapped = ["env", "MODE={config.a}", "timeout", "{config.a}", "p", "-c", "{config.a}"]
    assert Template.of(wrapped).filled({"a": "x"}) == ["env", "MODE=x", "timeout", "x", "p", "-c", "x"]
