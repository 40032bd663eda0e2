"""JSON objects as protobuf holds them, with whole numbers as they were written."""

from typing import Any

from google.protobuf.struct_pb2 import Struct, Value

# Up to here a double holds every whole number.
SAFE_INTEGER_END = 2**53


def plain(struct: Struct) -> dict[str, Any]:
    """The object as Python has it. Numbers without a fraction are ints; NaN and infinities stay floats."""
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return plain(value.struct_value)
        case "list_value":
            return [_plain(it) for it in value.list_value.values]
        case "string_value":
            return value.string_value
        case "number_value":
            return _number(value.number_value)
        case "bool_value":
            return value.bool_value
        case _:
            return None


def _number(number: float) -> int | float:
    return int(number) if number.is_integer() and abs(number) < SAFE_INTEGER_END else number
