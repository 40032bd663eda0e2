"""Messages of proto2 and of editions in both dialects, held against protobuf's own JSON."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from gateway.foreign import VECTORS, compile_protos
from gateway.messages import messages
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jobledger_gateway.binding import Binder, Incoming
from jobledger_gateway.decoding import decode
from jobledger_gateway.dialect import Dialect
from jobledger_gateway.encoding import encode_json
from jobledger_gateway.errors import GatewayError
from jobledger_gateway.http_rule import rules_of

BRIEF = settings(
    max_examples=40, phases=[Phase.explicit, Phase.generate], deadline=None, suppress_health_check=list(HealthCheck)
)


@cache
def pool() -> DescriptorPool:
    with TemporaryDirectory() as directory:
        # The last for types that an Any may hold.
        files = (VECTORS / "legacy.proto", VECTORS / "edition.proto", VECTORS / "vectors.proto")
        data = compile_protos(Path(directory) / "set", *files).read_bytes()
    made = DescriptorPool()
    for file in FileDescriptorSet.FromString(data).file:
        made.AddSerializedFile(file.SerializeToString())
    return made


def kind(name: str) -> Descriptor:
    found: Descriptor = pool().FindMessageTypeByName(name)
    return found


def some() -> st.SearchStrategy[Any]:
    return st.deferred(lambda: st.one_of(messages(kind("legacy.v1.Old")), messages(kind("edition.v1.Whole"))))


def again(value: Any, like: Message, dialect: Dialect) -> Any:
    """A message as it is read from JSON."""
    into = type(like)()
    assert decode(into, json.loads(json.dumps(value)), dialect) == []
    return into


@BRIEF
@given(some())
def test_they_are_written_as_protobuf_does_and_read_in_either_dialect(message: Any) -> None:
    canonical = json.loads(json.dumps(json_format.MessageToDict(message, descriptor_pool=pool())))
    assert json.loads(encode_json(message, Dialect.PROTOJSON)) == canonical
    for dialect in Dialect:
        assert again(json.loads(encode_json(message, dialect)), message, dialect) == message


def old(**fields: Any) -> Any:
    return GetMessageClass(kind("legacy.v1.Old"))(**fields)


@pytest.mark.parametrize("dialect", Dialect)
def test_extensions_are_written_and_an_any_that_is_not_known_does_not_spoil_them(dialect: Dialect) -> None:
    message = old(any={"type_url": "type.example/no.such.Type", "value": b"\x01"})
    message.Extensions[pool().FindExtensionByName("legacy.v1.size")] = 1 << 60
    nones = message.Extensions[pool().FindExtensionByName("legacy.v1.nones")]
    setattr(nones.add(), "class", 5)
    message.Extensions[pool().FindExtensionByName("legacy.v1.own")] = 2
    told = json.loads(encode_json(message, dialect))
    assert told["any"] == {"@type": "type.example/no.such.Type", "value": "AQ=="}
    plain = dialect is Dialect.PLAIN
    assert told["[legacy.v1.size]"] == (1 << 60 if plain else str(1 << 60))
    assert told["[legacy.v1.nones]"][0]["class"] == 5
    assert told["[legacy.v1.own]"] == ("1" if plain else "VERSION_1")


@pytest.mark.parametrize("dialect", Dialect)
def test_of_two_fields_that_share_a_name_it_is_that_of_the_one_which_is_written_by_it(dialect: Dialect) -> None:
    first, second = ("one", "other") if dialect is Dialect.PLAIN else ("other", "one")
    message = again({"one": "a", "other": "b"}, old(), dialect)
    assert (getattr(message, first), getattr(message, second)) == ("a", "b")
    assert asked("?one=a&other=b", dialect) == message


SHORT = {0: "VERSION_", 2: "1", 1: "2", 5: "VERSION_X", 6: "X", 7: "x"}


@pytest.mark.parametrize(("number", "name"), SHORT.items())
def test_a_short_name_means_one_value_wherever_it_is_read(number: int, name: str) -> None:
    """Where it would not, the name is not shortened."""
    message = old(version=number, versions=[number])
    assert json.loads(encode_json(message))["version"] == name
    assert again({"version": name, "versions": [name]}, message, Dialect.PLAIN) == message
    for ask in (f"/{name}?versions={name}", f"?version={name}&versions={name}"):
        assert asked(ask, Dialect.PLAIN) == message


def test_an_alias_and_a_number_are_read_where_no_name_is_the_same() -> None:
    assert asked("?version=one", Dialect.PLAIN).version == 2
    assert asked("?version=5", Dialect.PLAIN).version == 5
    assert again({"version": 1}, old(), Dialect.PLAIN).version == 1
    assert asked("?version=1", Dialect.PROTOJSON).version == 1
    with pytest.raises(GatewayError):
        asked("?version=", Dialect.PLAIN)


def asked(target: str, dialect: Dialect) -> Any:
    """The message of a request below /old."""
    path, _, query = f"old{target}".partition("?")
    segments = path.split("/")
    rules = rules_of(pool().FindMethodByName("legacy.v1.Legacy.Do"))
    (rule,) = (it for it in rules if it.method == "GET" and len(it.template.segments) == len(segments))
    return Binder(rule, dialect=dialect).bind(Incoming(segments=segments, query=query, body=b"", content_type=None))
