"""Every type of field in both dialects, held against protobuf's own JSON."""

import json
import math
import re
import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
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
# Bits of floats: the largest, the smallest normal and subnormal ones, powers of two and of ten.
FLOAT_EDGES = (0x7F7FFFFF, 0x00800000, 0x00000002, 0x3F800000, 0x4B800000, 0x501502F9, 0x2EDBE6FF, 0x7F000000)


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


def test_floats_are_the_shortest_that_read_back_as_the_same() -> None:
    """Some take all of nine digits. The largest one's shortest form lies above it, and yet is it."""
    message = new()
    edges = [struct.unpack("<f", struct.pack("<I", bits + step)) for bits in FLOAT_EDGES for step in (-1, 0, 1)]
    message.floats.extend(number for (number,) in edges if math.isfinite(number))
    message.floats.extend(
        [-3.4028234663852886e38, 16777217.0, 0.1, 1.36441695e-5, 1.37751935e-36, 1.00677895e27, 1.04641825e-11]
    )
    written = encode_json(message, Dialect.PROTOJSON)
    assert re.search(rb"[1-9]\.[0-9]{8}e", written)
    assert json.loads(written) == canonical(message)
    for dialect in Dialect:
        again = new()
        assert decode(again, json.loads(encode_json(message, dialect)), dialect) == []
        assert again.floats == message.floats


@pytest.mark.parametrize("mask", ["a_b", "a.b_c", "_", "aB,c_d", "aB", "a.bC", ""])
def test_masks_of_canonical_protojson_are_in_camel_case_alone(mask: str) -> None:
    into = new()
    refused = bool(decode(into, {"mask": mask}, Dialect.PROTOJSON))
    assert refused == ("_" in mask)
    if refused:
        with pytest.raises(json_format.ParseError):
            read({"mask": mask})
        assert decode(new(), {"mask": "a_b"}) == []
    else:
        assert same(into, read({"mask": mask}))


def test_an_any_of_a_type_that_is_not_known_is_told_as_bytes() -> None:
    message = new()
    message.any.type_url, message.any.value = "type.example/no.such.Type", b"\x01"
    for dialect in Dialect:
        told = json.loads(encode_json(message, dialect))["any"]
        assert told == {"@type": "type.example/no.such.Type", "value": "AQ=="}
    message.any.type_url = "type.googleapis.com/vectors.v1.Inner"
    assert json.loads(encode_json(message))["any"]["value"] == "AQ=="
