"""Random messages of any type, from its descriptor."""

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

F = FieldDescriptor
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
INT32, INT64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
UINT32, UINT64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
SCALARS: dict[int, st.SearchStrategy[Any]] = {
    F.TYPE_STRING: TEXT,
    F.TYPE_BYTES: st.binary(max_size=6),
    F.TYPE_BOOL: st.booleans(),
    F.TYPE_DOUBLE: st.floats(allow_nan=False),
    # Not the very largest: protobuf writes it so that it does not read it again.
    F.TYPE_FLOAT: st.floats(-(2.0**127), 2.0**127, width=32),
    **dict.fromkeys((F.TYPE_INT32, F.TYPE_SINT32, F.TYPE_SFIXED32), INT32),
    **dict.fromkeys((F.TYPE_INT64, F.TYPE_SINT64, F.TYPE_SFIXED64), INT64),
    **dict.fromkeys((F.TYPE_UINT32, F.TYPE_FIXED32), UINT32),
    **dict.fromkeys((F.TYPE_UINT64, F.TYPE_FIXED64), UINT64),
}
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False).filter(bool)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
PATHS = st.lists(st.sampled_from(["id", "display_name", "inner.count_of_things", "inner.b.a"]), max_size=2)
SPAN = st.integers(-(10**18), 10**18)


def messages(descriptor: Descriptor, depth: int = 2) -> st.SearchStrategy[Any]:
    """Messages of a type in which each field is set or not; none is nested deeper than `depth`."""
    known = WELL_KNOWN.get(descriptor.full_name)
    make: Any = GetMessageClass(descriptor)
    if known is not None:
        found: st.SearchStrategy[Any] = known(descriptor)
        return found
    fields = {field.name: _values(field, depth) for field in descriptor.fields if depth or field.message_type is None}
    return st.fixed_dictionaries({}, optional=fields).map(_one_of_each(descriptor)).map(lambda given: make(**given))


def _one_of_each(descriptor: Descriptor) -> Any:
    def chosen(given: dict[str, Any]) -> dict[str, Any]:
        for group in descriptor.oneofs:
            for field in group.fields[1:]:
                if group.fields[0].name in given:
                    given.pop(field.name, None)
        return given

    return chosen


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        parts = field.message_type.fields_by_name
        return st.dictionaries(_single(parts["key"], depth), _single(parts["value"], depth), max_size=2)
    return st.lists(_single(field, depth), max_size=2) if field.is_repeated else _single(field, depth)


def _single(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, depth - 1)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return SCALARS[field.type]


def _timestamps(descriptor: Descriptor) -> st.SearchStrategy[Any]:
    nanos = st.sampled_from([0, 5 * 10**8, 1_500_000, 1_000, 999_999_000])
    return st.builds(GetMessageClass(descriptor), seconds=st.integers(-62135596800, 253402300799), nanos=nanos)


def _durations(descriptor: Descriptor) -> st.SearchStrategy[Any]:
    def span(nanos: int) -> Any:
        sign, size = (-1 if nanos < 0 else 1), abs(nanos)
        return GetMessageClass(descriptor)(seconds=sign * (size // 10**9), nanos=sign * (size % 10**9))

    return SPAN.map(span)


def _json(field: str) -> Any:
    """Struct, Value and ListValue, of random JSON."""
    from google.protobuf import json_format

    kinds: dict[str, st.SearchStrategy[Any]] = {
        "Struct": st.dictionaries(TEXT, JSON, max_size=2),
        "ListValue": st.lists(JSON, max_size=2),
        "Value": JSON,
    }

    def made(descriptor: Descriptor) -> st.SearchStrategy[Any]:
        return kinds[field].map(lambda value: json_format.ParseDict(value, GetMessageClass(descriptor)()))

    return made


def _anys(descriptor: Descriptor) -> st.SearchStrategy[Any]:
    pool = descriptor.file.pool

    def packed(message: Any) -> Any:
        made: Any = GetMessageClass(descriptor)()
        made.Pack(message, deterministic=True)
        return made

    names = ("vectors.v1.Inner", "google.protobuf.Duration", "google.protobuf.Int64Value", "google.protobuf.Empty")
    return st.one_of(*(messages(pool.FindMessageTypeByName(name), 1) for name in names)).map(packed)


WELL_KNOWN: dict[str, Any] = {
    "google.protobuf.Timestamp": _timestamps,
    "google.protobuf.Duration": _durations,
    "google.protobuf.FieldMask": lambda descriptor: PATHS.map(lambda paths: GetMessageClass(descriptor)(paths=paths)),
    "google.protobuf.Any": _anys,
    **{f"google.protobuf.{name}": _json(name) for name in ("Struct", "Value", "ListValue")},
}
