"""Tells most good requests by what is set in them, where protovalidate reads every field that could be.

It never refuses: what it does not understand, or does not find surely good, is for protovalidate to judge.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import protovalidate
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

# Of a value: whether it surely keeps its rules.
Check = Callable[[Any], object]
ANY_LENGTH = (0, sys.maxsize)
# Of a character in UTF-8.
MOST_BYTES = 4
# What Python's patterns read in another way than RE2 does, or might: classes by letter or name, and groups with flags.
UNLIKE_RE2 = re.compile(r"\\[^x\\.]|\(\?|\[:")
SPAN = "google.protobuf.Duration"
# Nanoseconds; and in them the longest span that a Duration may have.
SECOND = 1_000_000_000
LONGEST = 315_576_000_000 * SECOND
INTEGERS = {
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
}


class QuickRules:
    """The rules in the .proto for these types of message, compiled at once."""

    def __init__(self, validator: protovalidate.Validator, types: Iterable[Descriptor]) -> None:
        compiler = _Compiler(validator)
        self._checks = {GetMessageClass(kind): compiler.message(kind) for kind in types}

    def surely_kept(self, message: Message) -> bool:
        """Whether the message keeps its rules. False says nothing: protovalidate knows."""
        return bool(self._checks.get(type(message), _never)(message))


class _Compiler:
    """Makes checks of rules."""

    def __init__(self, validator: protovalidate.Validator) -> None:
        self._validator = validator

    def message(self, kind: Descriptor, above: tuple[Descriptor, ...] = ()) -> Check:
        """What tells of a message of this type, which stands in messages of the types `above`."""
        if not any(map(_has_rules, _reached(kind, {}))):
            return _anything
        if kind in above or _has_own_rules(kind):
            return _never
        checks = {
            field: self._field(field, field.GetOptions().Extensions[validate_pb2.field], (*above, kind))
            for field in kind.fields
        }
        empty = self._validator.collect_violations(GetMessageClass(kind)())
        needed = {violation.proto.field.elements[0].field_number for violation in empty if violation.proto.field}
        return _of_what_is_set(checks, frozenset(map(kind.fields_by_number.__getitem__, needed)))

    def _field(self, field: FieldDescriptor, rules: Any, above: tuple[Descriptor, ...]) -> Check:
        if not field.is_repeated:
            return self._single(field, rules, above, "required")
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._pairs(field.message_type, rules, above)
        if not _only(rules, "required", "repeated") or not _only(rules.repeated, "min_items", "max_items", "items"):
            return _never
        bounds = _bounds(rules.repeated, "min_items", "max_items")
        return _list(bounds, self._single(field, rules.repeated.items, above))

    def _pairs(self, entry: Descriptor, rules: Any, above: tuple[Descriptor, ...]) -> Check:
        if not _only(rules, "required", "map") or not _only(rules.map, "min_pairs", "max_pairs", "keys", "values"):
            return _never
        key = self._single(entry.fields_by_name["key"], rules.map.keys, above)
        value = self._single(entry.fields_by_name["value"], rules.map.values, above)
        return _map(_bounds(rules.map, "min_pairs", "max_pairs"), key, value)

    def _single(self, field: FieldDescriptor, rules: Any, above: tuple[Descriptor, ...], *besides: str) -> Check:
        if _only(rules, *besides):
            return _anything if field.message_type is None else self.message(field.message_type, above)
        if field.message_type is not None and field.message_type.full_name == SPAN:
            return _span(rules.duration) if _only(rules, "duration", *besides) else _never
        if field.type == FieldDescriptor.TYPE_STRING and _only(rules, "string", *besides):
            return _string(rules.string)
        if field.enum_type is not None and _only(rules, "enum", *besides):
            return _enum(field.enum_type, rules.enum)
        name = INTEGERS.get(field.type)
        if name is not None and _only(rules, name, *besides) and _only(getattr(rules, name), "gte", "lte"):
            return _within(getattr(rules, name), "gte", "lte")
        return _never


def _of_what_is_set(checks: dict[FieldDescriptor, Check], needed: frozenset[FieldDescriptor]) -> Check:
    """What tells of a message by its fields that are set. Of the others only those break a rule that are `needed`."""

    def keeps(message: Message) -> bool:
        fields = message.ListFields()
        for field, value in fields:
            if not checks.get(field, _never)(value):
                return False
        return not needed or needed.issubset(dict(fields))

    return keeps


def _reached(message: Descriptor, seen: dict[str, Descriptor]) -> Iterator[Descriptor]:
    """The type, and those of all that may be in it."""
    if message.full_name in seen:
        return
    seen[message.full_name] = message
    yield message
    for field in message.fields:
        if field.message_type is not None:
            yield from _reached(field.message_type, seen)


def _has_rules(message: Descriptor) -> bool:
    fields = (field.GetOptions().HasExtension(validate_pb2.field) for field in message.fields)
    return _has_own_rules(message) or any(fields)


def _has_own_rules(message: Descriptor) -> bool:
    groups = (group.GetOptions().HasExtension(validate_pb2.oneof) for group in message.oneofs)
    return message.GetOptions().HasExtension(validate_pb2.message) or any(groups)


def _string(rules: Any) -> Check:
    if not _only(rules, "min_len", "max_len", "max_bytes", "pattern"):
        return _never
    lower, upper = _bounds(rules, "min_len", "max_len")
    if rules.HasField("max_bytes"):
        upper = min(upper, rules.max_bytes // MOST_BYTES)
    if not rules.HasField("pattern"):
        return _anything if (lower, upper) == ANY_LENGTH else lambda text: lower <= len(text) <= upper
    if UNLIKE_RE2.search(rules.pattern):
        return _never
    # What matches as a whole is found, too; `$` can't pass over a newline at the end.
    matches = re.compile(rules.pattern).fullmatch
    return matches if (lower, upper) == ANY_LENGTH else lambda text: lower <= len(text) <= upper and matches(text)


def _enum(kind: EnumDescriptor, rules: Any) -> Check:
    if not _only(rules, "defined_only", "not_in"):
        return _never
    defined = frozenset(kind.values_by_number) - frozenset(rules.not_in)
    return defined.__contains__


def _list(bounds: tuple[int, int], item: Check) -> Check:
    lower, upper = bounds

    def keeps(items: Any) -> bool:
        if not lower <= len(items) <= upper:
            return False
        for each in items:  # noqa: SIM110 - a loop takes half as long
            if not item(each):
                return False
        return True

    return keeps if item is not _anything else lambda items: lower <= len(items) <= upper


def _map(bounds: tuple[int, int], key: Check, value: Check) -> Check:
    lower, upper = bounds

    def keeps(pairs: Any) -> bool:
        if not lower <= len(pairs) <= upper:
            return False
        for each in pairs:  # noqa: SIM110 - a loop takes half as long
            if not (key(each) and value(pairs[each])):
                return False
        return True

    return keeps


def _bounds(rules: Any, least: str, most: str) -> tuple[int, int]:
    return getattr(rules, least), getattr(rules, most) if rules.HasField(most) else sys.maxsize


def _within(rules: Any, least: str, most: str) -> Check:
    lower = getattr(rules, least) if rules.HasField(least) else float("-inf")
    upper = getattr(rules, most) if rules.HasField(most) else float("inf")
    if lower > upper:
        # Such a rule asks for what is outside of the two.
        return _never
    return lambda value: lower <= value <= upper


def _span(rules: Any) -> Check:
    """Spans that are not negative alone are told, and those whose parts are in range: these compare as numbers do."""
    if not _only(rules, "gt", "gte", "lt", "lte"):
        return _never
    above = [_nanos(rules.gt) + 1] * rules.HasField("gt") + [_nanos(rules.gte)] * rules.HasField("gte")
    below = [_nanos(rules.lt) - 1] * rules.HasField("lt") + [_nanos(rules.lte)] * rules.HasField("lte")
    lower, upper = max([0, *above]), min([LONGEST, *below])
    if lower > upper:
        # Such a rule asks for what is outside of the two.
        return _never
    return lambda span: 0 <= span.nanos < SECOND and lower <= _nanos(span) <= upper


def _nanos(span: Any) -> int:
    seconds: int = span.seconds
    return seconds * SECOND + int(span.nanos)


def _only(rules: Any, *names: str) -> bool:
    """Whether nothing is said but these, and nothing that this version of the rules does not know."""
    return all(field.name in names for field, _ in rules.ListFields()) and not UnknownFieldSet(rules)


def _anything(_: object) -> bool:
    return True


def _never(_: object) -> bool:
    return False
