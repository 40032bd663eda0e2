"""Every type of field in both dialects, held against protobuf's own JSON."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gateway.foreign import VECTORS, compile_protos
from gateway.messages import messages
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jobledger_gateway.decoding import decode
from jobledger_gateway.descriptors import services_in
from jobledger_gateway.dialect import Dialect
from jobledger_gateway.encoding import encode_json

BRIEF = settings(
    max_examples=15, phases=[Phase.explicit, Phase.generate], deadline=None, suppress_health_check=list(HealthCheck)
)


@cache
def everything() -> Any:
    """The type with all others in it, in a pool that is not the process's own."""
    with TemporaryDirectory() as directory:
        compiled = compile_protos(Path(directory) / "set", VECTORS / "everything.proto", VECTORS / "vectors.proto")
        services = services_in(compiled.read_bytes(), name="everything.proto")
    (method,) = (it.methods_by_name["Get"] for it in services if it.full_name == "everything.v1.Anything")
    return method.input_type


def some() -> st.SearchStrategy[Any]:
    return st.deferred(lambda: messages(everything(), 1))


def new() -> Any:
    return GetMessageClass(everything())()


def canonical(message: Message) -> Any:
    return json_format.MessageToDict(message, descriptor_pool=everything().file.pool)


def read(value: Any) -> Any:
    return json_format.ParseDict(value, new(), descriptor_pool=everything().file.pool)


def same(one: Any, other: Any) -> bool:
    """By their bytes: it tells a message that is set and empty from one that is unset."""
    return bool(one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True))


@BRIEF
@given(some())
def test_canonical_protojson_is_that_of_protobuf(message: Any) -> None:
    assert json.loads(encode_json(message, Dialect.PROTOJSON)) == json.loads(json.dumps(canonical(message)))


@BRIEF
@given(some())
def test_what_protobuf_writes_is_read_as_protobuf_reads_it(message: Any) -> None:
    written = canonical(message)
    expected = read(written)
    for dialect in reversed(Dialect):
        again = new()
        assert decode(again, json.loads(json.dumps(written)), dialect) == []
        if dialect is Dialect.PLAIN:
            # There null means unset in a oneof.
            for side in (again, expected):
                drop_nulls(side)
        assert same(again, expected)


@BRIEF
@given(some())
def test_what_is_written_in_canonical_protojson_is_read_as_it_was(message: Any) -> None:
    again = new()
    assert decode(again, json.loads(encode_json(message, Dialect.PROTOJSON)), Dialect.PROTOJSON) == []
    assert same(again, read(canonical(message)))


@BRIEF
@given(some())
def test_what_is_written_in_plain_is_read_as_it_was(message: Any) -> None:
    """But for a Value that is null, which plain JSON can't tell from one that is unset."""
    again = new()
    assert decode(again, json.loads(encode_json(message))) == []
    for side in (again, message):
        drop_nulls(side)
    assert same(again, message)


def drop_nulls(message: Any) -> None:
    for field, value in message.ListFields():
        if field.full_name.startswith("google.protobuf."):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            nested = list(value.values()) if field.message_type.fields_by_name["value"].message_type else []
        else:
            nested = [] if field.message_type is None else list(value) if field.is_repeated else [value]
        for each in nested:
            drop_nulls(each)
        if field.name == "neither" or (field.name == "value" and value.WhichOneof("kind") in {None, "null_value"}):
            message.ClearField(field.name)


@BRIEF
@given(message=some(), data=st.data())
def test_what_protobuf_refuses_is_refused(message: Any, data: st.DataObject) -> None:
    """Values put in each other's places: ours may be stricter than protobuf, never laxer in canonical ProtoJSON."""
    written = canonical(message)
    if not written:
        return
    names = sorted(written)
    target, source = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
    mixed = {**written, target: written[source]}
    into = new()
    violations = decode(into, json.loads(json.dumps(mixed)), Dialect.PROTOJSON)
    try:
        expected = read(mixed)
    except json_format.ParseError:
        assert violations
        return
    assert violations or same(into, expected)


def test_negative_zero_and_numbers_that_json_lacks() -> None:
    for number in (-0.0, float("inf"), float("-inf"), float("nan")):
        message = new()
        message.a_double = message.a_float = number
        message.doubles.append(number)
        assert str(json.loads(encode_json(message, Dialect.PROTOJSON))) == str(canonical(message))


def test_an_any_of_a_type_that_is_not_known_is_told_as_bytes() -> None:
    message = new()
    message.any.type_url, message.any.value = "type.example/no.such.Type", b"\x01"
    for dialect in Dialect:
        told = json.loads(encode_json(message, dialect))["any"]
        assert told == {"@type": "type.example/no.such.Type", "value": "AQ=="}
    message.any.type_url = "type.googleapis.com/vectors.v1.Inner"
    assert json.loads(encode_json(message))["any"]["value"] == "AQ=="
