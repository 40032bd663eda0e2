"""Types that the API does not use (yet): scalars of every kind, wrappers, maps, recursion."""

import json
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, struct_pb2, wrappers_pb2
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger_gateway.decoding import decode
from jobledger_gateway.encoding import encode_json

FIELD = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "double": FIELD.TYPE_DOUBLE,
    "float": FIELD.TYPE_FLOAT,
    "int64": FIELD.TYPE_INT64,
    "uint64": FIELD.TYPE_UINT64,
    "int32": FIELD.TYPE_INT32,
    "fixed64": FIELD.TYPE_FIXED64,
    "fixed32": FIELD.TYPE_FIXED32,
    "bool": FIELD.TYPE_BOOL,
    "string": FIELD.TYPE_STRING,
    "bytes": FIELD.TYPE_BYTES,
    "uint32": FIELD.TYPE_UINT32,
    "sfixed32": FIELD.TYPE_SFIXED32,
    "sfixed64": FIELD.TYPE_SFIXED64,
    "sint32": FIELD.TYPE_SINT32,
    "sint64": FIELD.TYPE_SINT64,
    "from": FIELD.TYPE_STRING,  # a keyword of Python, and a fine name of a field
}


def everything() -> type[Message]:
    """A message with every scalar, alone and repeated, maps, wrappers, Value, and itself."""
    file = descriptor_pb2.FileDescriptorProto(name="test/everything.proto", package="test.everything", syntax="proto3")
    file.dependency.extend(["google/protobuf/wrappers.proto", "google/protobuf/struct.proto"])
    message = file.message_type.add(name="Everything")
    for number, (name, kind) in enumerate(SCALARS.items(), start=1):
        message.field.add(name=name, number=number, type=kind, label=FIELD.LABEL_OPTIONAL)
        message.field.add(name=f"many_{name}", number=100 + number, type=kind, label=FIELD.LABEL_REPEATED)
    inner = ".test.everything.Everything"
    kinds = {
        "itself": inner,
        "wrapped": ".google.protobuf.Int64Value",
        "wrapped_bytes": ".google.protobuf.BytesValue",
        "value": ".google.protobuf.Value",
        "list": ".google.protobuf.ListValue",
    }
    for number, (name, type_name) in enumerate(kinds.items(), start=200):
        add_message(message, name, number, type_name)
    for number, (name, key) in enumerate({"by_int": FIELD.TYPE_INT32, "by_bool": FIELD.TYPE_BOOL}.items(), start=300):
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=key, label=FIELD.LABEL_OPTIONAL)
        add_message(entry, "value", 2, inner)
        add_message(message, name, number, f"{inner}.{entry.name}", repeated=True)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName("test.everything.Everything"))


def add_message(
    to: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str, *, repeated: bool = False
) -> None:
    label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
    to.field.add(name=name, number=number, type=FIELD.TYPE_MESSAGE, type_name=kind, label=label)


Everything: Any = everything()


def integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LARGEST_FLOAT = 3.4028234663852886e38
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "double": st.floats(allow_nan=False),
    # Of the largest one Python's json_format does not read what it writes.
    "float": st.floats(width=32, allow_nan=False).filter(lambda number: abs(number) != LARGEST_FLOAT),
    "bool": st.booleans(),
    "string": TEXT,
    "from": TEXT,
    "bytes": st.binary(max_size=8),
    **{name: integers(32, signed=True) for name in ("int32", "sint32", "sfixed32")},
    **{name: integers(64, signed=True) for name in ("int64", "sint64", "sfixed64")},
    **{name: integers(32, signed=False) for name in ("uint32", "fixed32")},
    **{name: integers(64, signed=False) for name in ("uint64", "fixed64")},
}
FLAT = st.fixed_dictionaries(
    {},
    optional={
        **VALUES,
        **{f"many_{name}": st.lists(values, max_size=3) for name, values in VALUES.items()},
        "wrapped": integers(64, signed=True).map(lambda number: wrappers_pb2.Int64Value(value=number)),
        "wrapped_bytes": st.binary(max_size=4).map(lambda data: wrappers_pb2.BytesValue(value=data)),
        "value": st.sampled_from(
            [
                struct_pb2.Value(null_value=struct_pb2.NULL_VALUE),
                struct_pb2.Value(number_value=1.5),
                struct_pb2.Value(list_value=struct_pb2.ListValue(values=[struct_pb2.Value(bool_value=True)])),
            ]
        ),
    },
).map(lambda fields: Everything(**fields))
NESTED = st.fixed_dictionaries(
    {},
    optional={
        "itself": FLAT,
        "by_int": st.dictionaries(integers(32, signed=True), FLAT, max_size=2),
        "by_bool": st.dictionaries(st.booleans(), FLAT, max_size=2),
    },
).map(lambda fields: Everything(**fields))


@settings(max_examples=60, deadline=None)
@given(FLAT | NESTED)
def test_every_type_comes_back_as_it_was(message: Any) -> None:
    again = Everything()
    assert decode(again, json.loads(encode_json(message))) == []
    # JSON has one null for a Value that is unset and one that is null.
    for side in (again, message):
        drop_null_values(side)
    assert again == message


@settings(max_examples=60, deadline=None)
@given(FLAT | NESTED)
def test_every_type_agrees_with_protobufs_own_json(message: Any) -> None:
    # An unset Value is null here, as every unset message; protobuf reads that as a Value that is null.
    plain = {name: item for name, item in json.loads(encode_json(message)).items() if item is not None}
    for nested in [plain.get("itself", {}), *plain["by_int"].values(), *plain["by_bool"].values()]:
        if nested.get("value") is None:
            nested.pop("value", None)
    again = Everything()
    json_format.ParseDict(plain, again)
    for side in (again, message):
        drop_null_values(side)
    assert again == message


def drop_null_values(message: Any) -> None:
    for each in [message, message.itself, *message.by_int.values(), *message.by_bool.values()]:
        if each.HasField("value") and each.value.WhichOneof("kind") in {None, "null_value"}:
            each.ClearField("value")


@pytest.mark.parametrize(("text", "data"), [("_-8=", b"\xff\xef"), ("/+8", b"\xff\xef"), ("", b"")])
def test_bytes_are_base64_in_either_alphabet(text: str, data: bytes) -> None:
    message = Everything()
    assert decode(message, {"bytes": text}) == []
    assert message.bytes == data


@pytest.mark.parametrize(
    "value",
    [
        {"bytes": "a"}, {"bytes": "a b="}, {"bytes": 5}, {"float": 1e39}, {"double": "1e400"}, {"double": "nan"},
        {"double": "0x1"}, {"double": True}, {"bool": "true"}, {"bool": 1}, {"uint32": -1}, {"uint64": 2**64},
        {"wrapped": "x"}, {"by_int": {"01": {}}}, {"by_int": {"a": {}}},
        {"by_bool": {"1": {}}}, {"by_int": {"1": None}},
        {"itself": {"itself": {"nope": 1}}}, {"many_bool": [True, None]}, {"list": {}},
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(value: dict[str, Any]) -> None:
    assert len(decode(Everything(), value)) == 1


def test_null_is_a_value_for_value_alone() -> None:
    message = Everything()
    assert decode(message, {"value": None, "wrapped": None, "string": None}) == []
    assert message.value.WhichOneof("kind") == "null_value"
    assert not message.HasField("wrapped")
