"""How the items of a stream look on the wire: server-sent events, or lines of JSON."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from operator import attrgetter
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from jobledger.v1 import annotations_pb2

from jobledger_gateway.accept import rank
from jobledger_gateway.dialect import Dialect
from jobledger_gateway.encoding import encoder, value_encoder
from jobledger_gateway.errors import Problem
from jobledger_gateway.fields import descriptor_of, message_of
from jobledger_gateway.http_rule import RuleError, resolve

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"

# What would end a line of a server-sent event, or its field.
LINE_BREAKS = re.compile(r"[\r\n\0]")
# How many messages, and bursts of them, are remembered with their bytes; and the most bytes of each.
MESSAGES, MESSAGE_BYTES = 1024, 2048
BURSTS, BURST_BYTES = 16, 64 * 1024
# How many items that come coded are put together at once.
TOGETHER = 256


class StreamShape:
    """What a StreamRule says of the messages of a stream, and how its items look in JSON."""

    def __init__(
        self,
        message: Descriptor,
        rule: annotations_pb2.StreamRule,
        *,
        dialect: Dialect = Dialect.PLAIN,
        response_body: str = "",
    ) -> None:
        """Compiles a rule whose fields have been checked. Where it names no event, all are a `message`, as the format
        has it.

        Raises:
            RuleError: its parts do not go together.
        """
        self.rule = rule
        self.dialect = dialect
        item = message_of(resolve(message, (rule.item_field,))) if rule.item_field else message
        if response_body and rule.item_field:
            raise RuleError("a stream rule with item_field leaves response_body nothing to say")
        part = resolve(message, (response_body,)) if response_body else None
        self.value_of = encoder(item, dialect) if part is None else value_encoder(part, dialect)
        self.batch_of = _batch_of(message, item, rule.batch_field)
        self.id_is_optional = bool(rule.id_field) and item.fields_by_name[rule.id_field].has_presence
        self._bookmark = rule.bookmark_field.split(".") if rule.bookmark_field else []
        if len(self._bookmark) not in {0, 2}:
            raise RuleError(f"bookmark_field {rule.bookmark_field!r} is not a field within a message of the item")
        self.item_of: Callable[[Any], Any] = attrgetter(rule.item_field) if rule.item_field else lambda message: message

    def items_of(self, message: Any) -> Sequence[Any]:
        """The items that a message of the stream carries."""
        return self.batch_of(message) or (self.item_of(message),)

    def end_of(self, message: Message) -> Message | None:
        """The end that a message of the stream carries, if it does."""
        if not self.rule.end_field or not message.HasField(self.rule.end_field):
            return None
        end: Message = getattr(message, self.rule.end_field)
        return end

    def last(self, end: Message) -> Any:
        """The JSON value of the end that a message carries."""
        return encoder(descriptor_of(end), self.dialect)(end)

    def event_of(self, item: Message) -> bytes:
        """Name of the item's event."""
        name: str = LINE_BREAKS.sub(" ", getattr(item, self.rule.event_field)) if self.rule.event_field else ""
        return (self.rule.event_name or name or "message").encode()

    def id_of(self, item: Message) -> int | None:
        """Number of the item's event, or None for one that is not numbered; of a bookmark, the number that it marks."""
        name = self.rule.id_field
        if name and not (self.id_is_optional and not item.HasField(name)):
            number: int = getattr(item, name)
            return number
        if self._bookmark and item.HasField(self._bookmark[0]):
            marked: int = getattr(getattr(item, self._bookmark[0]), self._bookmark[1])
            return marked
        return None


def _batch_of(message: Descriptor, item: Descriptor, path: str) -> Callable[[Any], Sequence[Any]]:
    """What takes the items out of a message that has several; none out of any other.

    Raises:
        RuleError: the path leads to no such field.
    """
    if not path:
        return lambda _: ()
    field = resolve(message, path.split("."))
    if not field.is_repeated or field.message_type != item:
        raise RuleError(f"batch_field '{path}' is not a repeated {item.full_name}")
    return attrgetter(path)


class Remembered:
    """Bytes of some objects: of the very object, not of its equals. They must not change."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        # Each object is kept beside its bytes, so that no other one can have its id.
        self._known: dict[int, tuple[object, bytes]] = {}

    def get(self, of: object) -> bytes | None:
        """What was kept."""
        known = self._known.get(id(of))
        return None if known is None else known[1]

    def keep(self, of: object, framed: bytes) -> bytes:
        """Keeps these bytes, if they are few, for a while. Returns them."""
        if len(framed) <= self._most_bytes:
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[id(of)] = (of, framed)
        return framed


class Framing(ABC):
    """Bytes of the streams of one method.

    What was framed last is remembered: within a process all readers are given the very same messages, and thousands of
    them cost no more encoding than one.
    """

    media_type: str

    def __init__(self, shape: StreamShape) -> None:
        self._shape = shape
        self._messages = Remembered(MESSAGES, MESSAGE_BYTES)
        self._bursts = Remembered(BURSTS, BURST_BYTES)

    def message(self, message: Message) -> bytes:
        """The items that a message carries, which other readers may be given too."""
        return self._messages.get(message) or self._messages.keep(message, self.single(message))

    def single(self, message: Message) -> bytes:
        """The items that a message for one reader carries."""
        return b"".join(map(self._item, self._shape.items_of(message)))

    def burst(self, messages: Sequence[Message]) -> bytes:
        """The items that messages carry which are ready together."""
        return self._bursts.get(messages) or self._bursts.keep(messages, b"".join(map(self.message, messages)))

    @abstractmethod
    def preamble(self, starts_after: int | None) -> bytes:
        """What comes first, at once: for who is cut off before the first item, the number that it starts after."""

    @abstractmethod
    def ping(self) -> bytes:
        """What keeps the connection alive."""

    def coded(self, numbers: Iterable[bytes], items: Iterable[bytes]) -> Iterator[bytes]:
        """Items that come as JSON with their numbers, from a server within this process: some of them at a time."""
        framed = self._coded(numbers, items)
        while together := b"".join(chain.from_iterable(islice(framed, TOGETHER))):
            yield together

    @abstractmethod
    def _coded(self, numbers: Iterable[bytes], items: Iterable[bytes]) -> Iterator[Iterable[bytes]]:
        """What each of them consists of."""

    @abstractmethod
    def _item(self, item: Message) -> bytes:
        """One item."""

    @abstractmethod
    def end(self, last: Message | None) -> bytes:
        """The marker of a normal end, with the last message where there is one."""

    @abstractmethod
    def error(self, told: Problem) -> bytes:
        """The marker of an end by an error."""


class ServerSentEvents(Framing):
    """`text/event-stream`: `event`, `id` and one line of `data`."""

    media_type = SSE

    def __init__(self, shape: StreamShape) -> None:
        super().__init__(shape)
        # Where all items have one name and a number each, what surrounds them is known beforehand.
        fixed = bool(shape.rule.event_name and shape.rule.id_field and not shape.id_is_optional)
        self._head = b"event: %s\nid: " % shape.rule.event_name.encode() if fixed else b""
        self._number: Callable[[Any], Any] = attrgetter(shape.rule.id_field) if fixed else shape.id_of

    def preamble(self, starts_after: int | None) -> bytes:
        # Without data it is no event, and yet what a client resumes from.
        return b"retry: 2000\n\n" if starts_after is None else b"retry: 2000\nid: %d\n\n" % starts_after

    def ping(self) -> bytes:
        return b": ping\n\n"

    def _item(self, item: Message) -> bytes:
        data = orjson.dumps(self._shape.value_of(item))
        number = self._number(item)
        if self._head:
            return b"%s%d\ndata: %s\n\n" % (self._head, number, data)
        numbered = b"" if number is None else b"id: %d\n" % number
        return b"event: %s\n%sdata: %s\n\n" % (self._shape.event_of(item), numbered, data)

    def _coded(self, numbers: Iterable[bytes], items: Iterable[bytes]) -> Iterator[Iterable[bytes]]:
        return zip(repeat(self._head), numbers, repeat(b"\ndata: "), items, repeat(b"\n\n"))

    def end(self, last: Message | None) -> bytes:
        return b"event: end\ndata: %s\n\n" % (b"{}" if last is None else orjson.dumps(self._shape.last(last)))

    def error(self, told: Problem) -> bytes:
        name = self._shape.rule.error_event or "error"
        return b"event: %s\ndata: %s\n\n" % (name.encode(), told.encode())


class JsonLines(Framing):
    """`application/x-ndjson`: `{"result": ...}`, and last `{"end": ...}` or `{"error": ...}`.

    Silence is `{"heartbeat": {}}`: an empty line would be no JSON, on which many readers stumble.
    """

    media_type = NDJSON

    def preamble(self, starts_after: int | None) -> bytes:  # noqa: ARG002 - all lines are of the answer itself
        return b""

    def ping(self) -> bytes:
        return b'{"heartbeat":{}}\n'

    def _item(self, item: Message) -> bytes:
        return _line("result", self._shape.value_of(item))

    def _coded(self, numbers: Iterable[bytes], items: Iterable[bytes]) -> Iterator[Iterable[bytes]]:  # noqa: ARG002
        return zip(repeat(b'{"result":'), items, repeat(b"}\n"))

    def end(self, last: Message | None) -> bytes:
        return _line("end", {} if last is None else self._shape.last(last))

    def error(self, told: Problem) -> bytes:
        return orjson.dumps({"error": told.body()}, option=orjson.OPT_APPEND_NEWLINE)


class Framings:
    """The framings of the streams of one method."""

    def __init__(self, shape: StreamShape) -> None:
        self._events, self._lines = ServerSentEvents(shape), JsonLines(shape)

    def asked_for(self, accept: str) -> Framing:
        """The framing that an Accept header asks for: server-sent events, unless it would rather have NDJSON."""
        return self._lines if rank(accept, NDJSON) > rank(accept, SSE) else self._events


def _line(key: str, value: Any) -> bytes:
    return orjson.dumps({key: value}, option=orjson.OPT_APPEND_NEWLINE)
