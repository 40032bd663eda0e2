"""What `jobledger.v1.http_response` says of a method, held against its messages before anything is served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from jobledger.v1 import annotations_pb2

from jobledger_gateway.encoding import WIDE
from jobledger_gateway.errors import RULES
from jobledger_gateway.fields import message_of
from jobledger_gateway.framing import LINE_BREAKS
from jobledger_gateway.http_rule import Rule, RuleError, resolve
from jobledger_gateway.scalars import RANGES
from jobledger_gateway.unary import content_of

# Statuses of success that say that there is no body, or how a client is to show what it has.
BODILESS = frozenset({204, 205})
SUCCESS = range(200, 300)


class Of(Enum):
    """The message that a field is looked for in."""

    REQUEST = auto()
    ANSWER = auto()
    ITEM = auto()


@dataclass(frozen=True, slots=True)
class Kind:
    """Fields that a rule can name: what they are called, and the types that they may have. None may be repeated."""

    text: str
    types: frozenset[int]

    def check(self, field: FieldDescriptor) -> None:
        """Raises RuleError for a field that is none of these."""
        if field.is_repeated or field.type not in self.types:
            raise RuleError(f"'{field.full_name}' is not {self.text}")


INTEGER = Kind("a single integer", frozenset(RANGES))
WIDE_INTEGER = Kind("a single integer of 64 bits", WIDE)
SIGNED = Kind("a single signed integer of 64 bits", frozenset(kind for kind in WIDE if RANGES[kind][0] < 0))
STRING = Kind("a single string", frozenset({FieldDescriptor.TYPE_STRING}))
MESSAGE = Kind("a single message", frozenset({FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_GROUP}))

# Where each name of a field leads, and to what. The item comes first: others are looked for in it.
ITEM_FIELD = "item_field"
STREAM_FIELDS = {
    ITEM_FIELD: (Of.ANSWER, MESSAGE),
    "end_field": (Of.ANSWER, MESSAGE),
    "event_field": (Of.ITEM, STRING),
    "id_field": (Of.ITEM, INTEGER),
    "bookmark_field": (Of.ITEM, INTEGER),
    "resume_field": (Of.REQUEST, INTEGER),
    "batch_size_field": (Of.REQUEST, INTEGER),
}
RANGE_FIELDS = {"offset_field": (Of.REQUEST, SIGNED), "length_field": (Of.REQUEST, WIDE_INTEGER)}
# Names of fields within a message of the item, with a point before them.
PATHS = frozenset({"bookmark_field"})
# What is written as it stands, in a line or as the name of metadata.
STREAM_NAMES = ("event_name", "error_event", "start_metadata")


def response_rule(method: MethodDescriptor) -> annotations_pb2.HttpResponseRule:
    """How a method answers over HTTP, as its option says."""
    return method.GetOptions().Extensions[annotations_pb2.http_response]


def check_response(method: MethodDescriptor, rules: Sequence[Rule]) -> None:
    """Holds the option of a method against it and its bindings.

    Raises:
        RuleError: it names what there is not, what is of another kind, or what such a method can't have.
    """
    answer, of_bytes = response_rule(method), {content_of(rule) is not None for rule in rules}
    try:
        _check_status(method, answer.success_status)
        _check_reasons("error", answer.error)
        if answer.HasField("stream"):
            _check_answer(method, "stream", "messages", fits=False in of_bytes)
            _check_stream(method, answer.stream)
        if answer.HasField("range"):
            _check_answer(method, "range", "google.api.HttpBody", fits=True in of_bytes)
            _check_fields("range", answer.range, RANGE_FIELDS, method)
    except RuleError as error:
        raise RuleError(f"{method.full_name}: http_response.{error}") from None


def _check_answer(method: MethodDescriptor, part: str, kind: str, *, fits: bool) -> None:
    if not method.server_streaming or not fits:
        raise RuleError(f"{part}: is for methods that answer with a stream of {kind}")


def _check_status(method: MethodDescriptor, status: int) -> None:
    if status and method.server_streaming:
        raise RuleError("success_status: is for methods that answer with one message, not with a stream")
    if status and status not in SUCCESS:
        raise RuleError(f"success_status: {status} is not from {SUCCESS[0]} to {SUCCESS[-1]}")
    if status in BODILESS:
        raise RuleError(f"success_status: an answer of {status} has no body, and every method here has one")


def _check_reasons(name: str, reasons: Sequence[str]) -> None:
    for reason in reasons:
        if reason not in RULES:
            raise RuleError(f"{name}: there is no error '{reason}': name one of ErrorReason, without its prefix")


def _check_stream(method: MethodDescriptor, rule: annotations_pb2.StreamRule) -> None:
    for name in STREAM_NAMES:
        if LINE_BREAKS.search(getattr(rule, name)):
            raise RuleError(f"stream.{name}: a name can't have line breaks or NUL")
    _check_reasons("stream.resume_error", [rule.resume_error] if rule.resume_error else [])
    _check_fields("stream", rule, STREAM_FIELDS, method)


def _check_fields(part: str, rule: Any, fields: Mapping[str, tuple[Of, Kind]], method: MethodDescriptor) -> None:
    messages = {Of.REQUEST: method.input_type, Of.ANSWER: method.output_type, Of.ITEM: method.output_type}
    for name, (of, kind) in fields.items():
        path = getattr(rule, name)
        if not path and name in RANGE_FIELDS:
            raise RuleError(f"{part}.{name}: names no field")
        if not path:
            continue
        try:
            field = resolve(messages[of], path.split(".") if name in PATHS else (path,))
            kind.check(field)
        except RuleError as error:
            raise RuleError(f"{part}.{name}: {error}") from None
        if name == ITEM_FIELD:
            messages[Of.ITEM] = message_of(field)
