"""What `config` of a job type may be, and that finding out costs no more than it should."""

import time
from pathlib import Path
from typing import Any

import pytest
from jobledger_server.core.config_schema import MOST_CHARACTERS, MOST_VIOLATIONS, ConfigSchema, SchemaError
from jobledger_server.core.errors import Reason, ServiceError

PATHS = {
    "type": "object",
    "properties": {
        "from": {"$ref": "#/$defs/place"},
        "many": {"type": "array", "items": {"$ref": "#/$defs/place"}},
        "a/b~c": {"type": "string", "format": "path"},
        "other": {"type": "string"},
    },
    "$defs": {"place": {"type": "string", "format": "path"}},
}


def fields(schema: ConfigSchema, config: dict[str, Any]) -> list[str]:
    with pytest.raises(ServiceError) as caught:
        schema.check(config)
    assert caught.value.reason == Reason.ERROR_REASON_VALIDATION
    return [violation.field for violation in caught.value.fields]


def test_each_violation_is_named_without_its_value() -> None:
    schema = ConfigSchema.of(
        {"properties": {"a": {"type": "integer"}, "b": {"items": {"enum": ["x"]}}}, "required": ["c"]}
    )
    with pytest.raises(ServiceError) as caught:
        schema.check({"a": "hunter2", "b": ["x", "hunter2"]})
    assert sorted(it.field for it in caught.value.fields) == ["spec.config", "spec.config.a", "spec.config.b[1]"]
    assert "hunter2" not in caught.value.message
    schema.check({"a": 1, "b": ["x"], "c": None})


def test_without_a_schema_config_is_empty() -> None:
    ConfigSchema.of(None).check({})
    assert fields(ConfigSchema.of(None), {"a": 1}) == ["spec.config"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strin"},
        {"properties": {"a": {"pattern": "["}}},
        {"properties": {"a": {"pattern": r"(?=a)b|(a)\1"}}},
        {"properties": {"a": {"format": "pth"}}},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/$defs/none"},
        {"$schema": "http://json-schema.org/draft-07/schema#"},
    ],
)
def test_what_is_no_schema_or_lies_elsewhere_is_refused_at_the_start(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        ConfigSchema.of(schema)


def test_no_pattern_takes_long() -> None:
    """With a matcher that goes back, the first would take longer than the sun shines."""
    schema = ConfigSchema.of({"properties": {"a": {"pattern": "^(a+)+$"}, "b": {"pattern": "^(a|a)*b$"}}})
    began = time.process_time()
    assert fields(schema, {"a": "a" * 500_000 + "!", "b": "a" * 500_000}) == ["spec.config.a", "spec.config.b"]
    assert time.process_time() - began < 2


def test_what_is_told_is_bounded() -> None:
    schema = ConfigSchema.of({"additionalProperties": {"type": "integer"}, "propertyNames": {"maxLength": 4}})
    config = {f"{'k' * 10_000}{number}": "x" * 10_000 for number in range(100)}
    with pytest.raises(ServiceError) as caught:
        schema.check(config)
    assert len(caught.value.fields) == MOST_VIOLATIONS
    assert all(
        len(it.description) <= MOST_CHARACTERS and len(it.field) <= MOST_CHARACTERS for it in caught.value.fields
    )


def test_paths_are_held_against_the_roots_wherever_the_schema_marks_them(tmp_path: Path) -> None:
    schema = ConfigSchema.of(PATHS)
    good, hidden = str(tmp_path / "in"), tmp_path / "data"
    schema.check_paths({"from": good, "many": [good], "a/b~c": good, "other": "/etc/passwd"}, [tmp_path], hidden)
    for config, field in (
        ({"from": "/etc/passwd"}, "spec.config.from:"),
        ({"many": [good, "/etc/passwd"]}, r"spec\.config\.many\[1\]:"),
        ({"a/b~c": str(hidden / "token")}, "spec.config.a/b~c:"),
    ):
        with pytest.raises(ServiceError, match=field) as caught:
            schema.check_paths(config, [tmp_path], hidden)
        assert caught.value.reason == Reason.ERROR_REASON_PATH_NOT_ALLOWED
    with pytest.raises(ServiceError) as caught:
        schema.check_paths({"from": f"{tmp_path}/../x"}, [tmp_path], hidden)
    assert caught.value.reason == Reason.ERROR_REASON_PATH_TRAVERSAL
