"""Comments of the .proto files, which the generated modules leave out."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from jobledger_gateway.descriptors import files_in

# Field numbers of FileDescriptorProto and its parts, by which a location is named.
MESSAGES, ENUMS, SERVICES = 4, 5, 6
FIELDS, NESTED_MESSAGES, NESTED_ENUMS = 2, 3, 4
MEMBERS = 2


@cache
def comments() -> Mapping[str, str]:
    """The comments of Jobledger's own files."""
    return comments_in(resources.files("jobledger.v1").joinpath("descriptors.binpb").read_bytes())


def load_comments(path: Path) -> Mapping[str, str]:
    """The comments in a file that `load_services` reads.

    Raises:
        OSError: the file can't be read.
        DecodeError: it is no descriptor set.
    """
    return comments_in(path.read_bytes())


def comments_in(data: bytes) -> Mapping[str, str]:
    """The leading comment of each message, field, enum, value, service and method of a descriptor set, by full name.

    There are none where it was written without: `buf build` keeps them, protoc with `--include_source_info`.
    """
    found: dict[str, str] = {}
    for file in files_in(data):
        names = dict(_names(file))
        for location in file.source_code_info.location:
            name = names.get(tuple(location.path))
            if name and location.leading_comments:
                found[name] = _joined(location.leading_comments)
    return found


def _joined(comment: str) -> str:
    return " ".join(line.strip() for line in comment.splitlines()).strip()


def _names(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    scope = f"{file.package}." if file.package else ""
    for index, message in enumerate(file.message_type):
        yield from _message_names(message, (MESSAGES, index), scope)
    for kind, parents, members in ((ENUMS, file.enum_type, "value"), (SERVICES, file.service, "method")):
        yield from _member_names(kind, parents, members, (), scope)


def _message_names(
    message: DescriptorProto, path: tuple[int, ...], scope: str
) -> Iterator[tuple[tuple[int, ...], str]]:
    name = f"{scope}{message.name}"
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, FIELDS, index), f"{name}.{field.name}"
    for index, nested in enumerate(message.nested_type):
        yield from _message_names(nested, (*path, NESTED_MESSAGES, index), f"{name}.")
    yield from _member_names(NESTED_ENUMS, message.enum_type, "value", path, f"{name}.")


def _member_names(
    kind: int, parents: Sequence[Any], members: str, path: tuple[int, ...], scope: str
) -> Iterator[tuple[tuple[int, ...], str]]:
    for index, parent in enumerate(parents):
        here = (*path, kind, index)
        yield here, f"{scope}{parent.name}"
        for at, member in enumerate(getattr(parent, members)):
            yield (*here, MEMBERS, at), f"{scope}{parent.name}.{member.name}"
