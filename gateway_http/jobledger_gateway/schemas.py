"""JSON schemas of messages, for the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from jobledger_gateway.comments import comments
from jobledger_gateway.dialect import Dialect
from jobledger_gateway.encoding import ANY_NAME, FLOATS, WIDE, json_rule
from jobledger_gateway.enums import names
from jobledger_gateway.fields import WRAPPERS, is_map, map_parts, message_of
from jobledger_gateway.scalars import NOT_FINITE, NULL_VALUE

Schema = dict[str, Any]

INTEGERS: Mapping[int, Schema] = {
    FieldDescriptor.TYPE_INT32: {"format": "int32"},
    FieldDescriptor.TYPE_SINT32: {"format": "int32"},
    FieldDescriptor.TYPE_SFIXED32: {"format": "int32"},
    FieldDescriptor.TYPE_INT64: {"format": "int64"},
    FieldDescriptor.TYPE_SINT64: {"format": "int64"},
    FieldDescriptor.TYPE_SFIXED64: {"format": "int64"},
    FieldDescriptor.TYPE_UINT32: {"minimum": 0},
    FieldDescriptor.TYPE_FIXED32: {"minimum": 0},
    FieldDescriptor.TYPE_UINT64: {"minimum": 0},
    FieldDescriptor.TYPE_FIXED64: {"minimum": 0},
}

WELL_KNOWN: Mapping[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {
        "type": "string",
        "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$",
        "examples": ["1.5s"],
    },
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.FieldMask": {"type": "string", "description": "Paths of fields, with commas between them."},
    ANY_NAME: {"type": "object", "properties": {"@type": {"type": "string"}}, "additionalProperties": True},
}
WIDE_TEXT: Schema = {"type": "string", "format": "int64", "pattern": "^-?(0|[1-9][0-9]{0,19})$"}
NO_RULES = validate_pb2.FieldRules()

# Rules of protovalidate that JSON Schema can say, by the kind of field that they are for.
# No character has less than a byte: a bound of bytes is one of characters too.
STRINGS = {"min_len": "minLength", "max_bytes": "maxLength", "max_len": "maxLength", "pattern": "pattern"}
NUMBERS = {"gte": "minimum", "gt": "exclusiveMinimum", "lte": "maximum", "lt": "exclusiveMaximum"}
LISTS = {"min_items": "minItems", "max_items": "maxItems", "unique": "uniqueItems"}
MAPS = {"min_pairs": "minProperties", "max_pairs": "maxProperties"}
RULES = {"string": STRINGS, "repeated": LISTS, "map": MAPS}


class Schemas:
    """Schemas of messages and enums, gathered as they are referred to."""

    # What the names of components end with.
    suffix = ""

    def __init__(self, texts: Mapping[str, str] | None = None, dialect: Dialect = Dialect.PLAIN) -> None:
        """`texts` are the comments by full name; those of Jobledger's own files where there is nothing else."""
        self.components: dict[str, Schema] = {}
        self.texts = comments() if texts is None else texts
        self.dialect = dialect

    def reference(self, kind: Descriptor | EnumDescriptor) -> Schema:
        """A reference to the schema of a message or enum."""
        if isinstance(kind, Descriptor) and kind.full_name in WELL_KNOWN:
            return dict(WELL_KNOWN[kind.full_name])
        if isinstance(kind, Descriptor) and kind.full_name in WRAPPERS:
            return self._single(kind.fields_by_name["value"], NO_RULES)
        name = kind.full_name + self.suffix
        if name not in self.components:
            # Entered before its fields are looked at, so that a recursive type ends.
            self.components[name] = {}
            made = self._enum(kind) if isinstance(kind, EnumDescriptor) else self._message(kind)
            self.components[name].update(made)
        return {"$ref": f"#/components/schemas/{name}"}

    def _message(self, message: Descriptor) -> Schema:
        properties: Schema = {}
        required: list[str] = []
        for field in message.fields:
            rule = json_rule(field)
            if rule.flatten:
                properties.update({part.name: self.field(part) for part in message_of(field).fields})
                continue
            properties[self.name_of(field)] = self.field(field)
            if not rule.omit_unset and self.dialect is Dialect.PLAIN:
                required.append(field.name)
        always = {"required": required} if self.dialect is Dialect.PLAIN else {}
        return {"type": "object", **self.described(message.full_name), "properties": properties, **always}

    def name_of(self, field: FieldDescriptor) -> str:
        """The key of a field."""
        return field.name if self.dialect is Dialect.PLAIN else field.json_name

    def described(self, full_name: str) -> Schema:
        """The comment of what has this name, if it has one."""
        text = self.texts.get(full_name)
        return {"description": text} if text else {}

    def field(self, field: FieldDescriptor) -> Schema:
        """The schema of a field, null included where it can be unset."""
        value = self.value(field)
        unset = field.has_presence and not field.is_repeated and self.dialect is Dialect.PLAIN
        return {**or_null(value), **self.described(field.full_name)} if unset else value

    def part(self, field: FieldDescriptor) -> Schema:
        """The schema of a field that is an answer by itself: null where it is unset, in either dialect."""
        value = self.value(field)
        return {**or_null(value), **self.described(field.full_name)} if field.has_presence else value

    def value(self, field: FieldDescriptor) -> Schema:
        """The schema of a field that is set."""
        rules = constraints(field)
        if is_map(field):
            made = self._single(map_parts(field)[1], rules.map.values)
            keys = {"propertyNames": found} if (found := limits(rules.map.keys)) else {}
            schema: Schema = {"type": "object", "additionalProperties": made, **keys, **limits(rules)}
        elif field.is_repeated:
            schema = {"type": "array", "items": self._single(field, rules.repeated.items), **limits(rules)}
        else:
            schema = self._single(field, rules)
        return {**schema, **self.described(field.full_name)}

    def _single(self, field: FieldDescriptor, rules: Any) -> Schema:
        if field.message_type is not None:
            return self.reference(field.message_type)
        if field.enum_type is not None:
            return self.reference(field.enum_type)
        if field.type in WIDE and self.dialect is Dialect.PROTOJSON:
            return self._wide(rules)
        if field.type in FLOATS:
            return self._real(rules)
        return {**_scalar(field), **limits(rules)}

    def _real(self, rules: Any) -> Schema:
        """A float or double."""
        first, *others = self._reals(rules)
        return {"anyOf": [first, *others]} if others else first

    def _reals(self, rules: Any) -> list[Schema]:
        """What a float or double can be: JSON has no numbers for three of them, which rules may refuse."""
        bounds = limits(rules)
        number = {"type": "number", **bounds}
        is_finite = len(bounds) > 1 or bool(rules.float.finite or rules.double.finite)
        return [number] if is_finite else [number, {"type": "string", "enum": list(NOT_FINITE)}]

    def _wide(self, rules: Any) -> Schema:  # noqa: ARG002 - rules are for numbers, which requests may have
        """A 64-bit integer of canonical ProtoJSON."""
        return dict(WIDE_TEXT)

    def _enum(self, enum: EnumDescriptor) -> Schema:
        if enum.full_name == NULL_VALUE:
            return {"type": "null"}
        values = {
            name: self.texts.get(f"{enum.full_name}.{enum.values_by_number[number].name}", "")
            for number, name in names(enum, self.dialect).items()
        }
        lines = "\n".join(f"- `{name}`: {text}" for name, text in values.items() if text)
        return {
            "type": "string",
            "enum": list(values),
            "description": f"{self.texts.get(enum.full_name, '')}\n\n{lines}".strip(),
        }


def _scalar(field: FieldDescriptor) -> Schema:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return {"type": "string"}
        case FieldDescriptor.TYPE_BOOL:
            return {"type": "boolean"}
        case FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        case kind:
            return {"type": "integer", **INTEGERS[kind]}


def constraints(field: FieldDescriptor) -> Any:
    """The rules of protovalidate for a field."""
    return field.GetOptions().Extensions[validate_pb2.field]


def limits(rules: Any) -> Schema:
    """What JSON Schema can say of the rules of protovalidate for a value."""
    kind = rules.WhichOneof("type")
    if kind in {None, "enum", "duration", "timestamp", "bool", "any"}:
        return {}
    given = getattr(rules, kind)
    names = RULES.get(kind, NUMBERS)
    found = {target: getattr(given, name) for name, target in names.items() if given.HasField(name)}
    if kind == "string" and getattr(given, "in"):
        found["enum"] = list(getattr(given, "in"))
    return {target: value for target, value in found.items() if value is not False and value != ""}


def or_null(schema: Schema) -> Schema:
    """The schema, or null."""
    if schema.get("type") == "null":
        return schema
    if isinstance(schema.get("type"), str):
        nullable = {**schema, "type": [schema["type"], "null"]}
        return {**nullable, "enum": [*schema["enum"], None]} if "enum" in schema else nullable
    if not schema:
        return schema
    text = {"description": schema["description"]} if "description" in schema else {}
    inner = {name: value for name, value in schema.items() if name != "description"}
    alternatives = inner.pop("anyOf") if inner.keys() == {"anyOf"} else [inner]
    return {"anyOf": [*alternatives, {"type": "null"}], **text}
