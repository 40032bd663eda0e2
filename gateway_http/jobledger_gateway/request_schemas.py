"""JSON schemas of what clients send: the same messages as in answers, with what is understood beyond what is written.

In a request null is unset, a duration may be a number of seconds, and an enum value may be spelled as in canonical
ProtoJSON. Rules say what is refused; what is refused when it is left out is required.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from jobledger_gateway.dialect import Dialect
from jobledger_gateway.enums import names
from jobledger_gateway.scalars import NULL_VALUE, NUMBER
from jobledger_gateway.schemas import WIDE_TEXT, Schema, Schemas, constraints, limits, or_null
from jobledger_gateway.times import LONGEST_DURATION
from jobledger_gateway.well_known_in import MASK_PATH

# Not its bounds at every depth: a schema that refers to itself is one that many generators of clients can't read.
JSON_VALUE: Schema = {"description": "Any JSON. Whole numbers past 2^53 would lose digits: send them as strings."}
CANONICAL = "As in canonical ProtoJSON."
# Base64 in either alphabet, padded or not.
BASE64 = r"^([A-Za-z0-9+/_-]{4})*([A-Za-z0-9+/_-]{2,3})?=*$"
SEGMENT = r"^(?!\.{1,2}$)[^\x00-\x1F\x7F]+$"
ONE_OF_THEM = r"(?!\.{1,2}(/|$))[^/\x00-\x1F\x7F]+"
SEGMENTS = rf"^{ONE_OF_THEM}(/{ONE_OF_THEM})*$"
MASK = rf"^(({MASK_PATH.pattern})(,({MASK_PATH.pattern}))*)?$"
MASKS = {Dialect.PLAIN: MASK, Dialect.PROTOJSON: f"^(?!.*_){MASK[1:]}"}
NANOSECOND = 1e-9
FRACTION = r"(\.[0-9]{1,9})?"


class RequestSchemas(Schemas):
    """Schemas of messages as clients send them, gathered as they are referred to."""

    suffix = ".Input"

    def object_of(self, message: Descriptor, *, without: Iterable[str] = ()) -> Schema:
        """An object with the fields of a message but for some; no others."""
        left = set(without)
        fields = [field for field in message.fields if field.name not in left]
        schema: Schema = {
            "type": "object",
            "additionalProperties": False,
            "properties": {self.name_of(field): self.field(field) for field in fields},
        }
        required = [self.name_of(field) for field in fields if must_be_given(field)]
        return {**schema, "required": required} if required else schema

    def field(self, field: FieldDescriptor) -> Schema:
        """The schema of a field of a body: null too, where it need not be given."""
        value = self.value(field)
        return value if must_be_given(field) else {**or_null(value), **self.described(field.full_name)}

    def path_value(self, field: FieldDescriptor, *, deep: bool = False) -> Schema:
        """The schema of a field that a segment of a path sets, or several."""
        schema = self.value(field)
        if schema.get("type") != "string" or field.type != FieldDescriptor.TYPE_STRING:
            return schema
        return {**schema, "minLength": 1, "pattern": SEGMENTS if deep else SEGMENT}

    def _message(self, message: Descriptor) -> Schema:
        return {**self.object_of(message), **self.described(message.full_name)}

    def _single(self, field: FieldDescriptor, rules: Any) -> Schema:
        if field.enum_type is not None:
            return self._enum_value(field.enum_type, rules)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return {"pattern": BASE64, **super()._single(field, rules)}
        match field.message_type.full_name if field.message_type is not None else "":
            case "google.protobuf.Duration":
                text, number = _duration(rules.duration)
                return {"anyOf": [text, number]} if self.dialect is Dialect.PLAIN else text
            case "google.protobuf.Struct":
                return {"type": "object", "additionalProperties": dict(JSON_VALUE)}
            case "google.protobuf.FieldMask":
                return {"pattern": MASKS[self.dialect], **super()._single(field, rules)}
        return super()._single(field, rules)

    def _reals(self, rules: Any) -> list[Schema]:
        return [*super()._reals(rules), {"type": "string", "pattern": f"^{NUMBER.pattern}$"}]

    def _wide(self, rules: Any) -> Schema:
        return {"anyOf": [dict(WIDE_TEXT), {"type": "integer", **limits(rules)}]}

    def _enum_value(self, enum: EnumDescriptor, rules: Any) -> Schema:
        """Names as answers have them first; those and the numbers of canonical ProtoJSON are understood as well."""
        if enum.full_name == NULL_VALUE:
            return {"type": "null"}
        refused = set(getattr(rules.enum, "not_in", ()))
        values = [value for value in enum.values if value.number not in refused]
        written = names(enum, self.dialect)
        short = list(dict.fromkeys(written[value.number] for value in values))
        long = [value.name for value in values if value.name not in short]
        # An alternative for each type: generators of clients make a type of each.
        return {
            "anyOf": [
                {"type": "string", "enum": short},
                *([{"type": "string", "enum": long, "description": CANONICAL}] if long else []),
                {"type": "integer", "enum": sorted({value.number for value in values}), "description": CANONICAL},
            ],
            **self.described(enum.full_name),
        }


def must_be_given(field: FieldDescriptor) -> bool:
    """Whether a request without the field is refused."""
    rules = constraints(field)
    if rules.required or field.is_required:
        return True
    if field.has_presence:
        return False
    if field.is_repeated:
        return bool(rules.repeated.min_items or rules.map.min_pairs)
    return bool(rules.string.min_len) or 0 in rules.enum.not_in


def _duration(rules: Any) -> tuple[Schema, Schema]:
    """A span within its bounds, as text and as a number of seconds."""
    low, high = rules.WhichOneof("greater_than"), rules.WhichOneof("less_than")
    least = {"": -LONGEST_DURATION, "gt": NANOSECOND, "gte": 0}[low or ""]
    most = rules.lte.seconds if high else LONGEST_DURATION
    sign = "" if low else "-?"
    more = "(?=.*[1-9])" if low == "gt" else ""
    number = f"({_up_to(most)}{FRACTION}|{most}(\\.0{{1,9}})?)"
    text = {"type": "string", "pattern": f"^{more}{sign}{number}s$", "examples": ["1.5s"]}
    return text, {"type": "number", "minimum": least, "maximum": most, "description": "Seconds."}


def _up_to(bound: int) -> str:
    """A pattern for the whole numbers below a bound, without signs."""
    return f"({'|'.join(_below(str(bound)))})"


def _below(digits: str) -> Iterator[str]:
    if len(digits) > 1:
        yield f"[0-9]{{1,{len(digits) - 1}}}"
    for place, digit in enumerate(digits):
        if digit != "0":
            yield f"{digits[:place]}[0-{int(digit) - 1}][0-9]{{{len(digits) - place - 1}}}"
