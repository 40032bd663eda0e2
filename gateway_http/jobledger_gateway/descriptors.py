"""Descriptor sets: files that protoc and buf write, as services."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from google.api import annotations_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

# The options that we read. Jobledger's have numbers that are everybody's own: in any other file they are another's.
ANYONES = ("google/api/annotations.proto", "buf/validate/validate.proto")
OWN = "jobledger/v1/annotations.proto"
HOW = "write one with `protoc --include_imports --descriptor_set_out=FILE ...` or `buf build -o FILE.binpb`"


class DescriptorError(Exception):
    """A descriptor set that can't be served. Says what to do about it."""


def load_services(path: Path) -> tuple[ServiceDescriptor, ...]:
    """The services in a file whose methods have google.api.http annotations, in the order of the file.

    Raises:
        DescriptorError: the file is no descriptor set, is not complete, or holds no such service.
        OSError: the file can't be read.
    """
    return services_in(path.read_bytes(), name=str(path))


def services_in(data: bytes, *, name: str) -> tuple[ServiceDescriptor, ...]:
    """The same of the bytes of a descriptor set.

    Raises:
        DescriptorError: see `load_services`; `name` stands in its text.
    """
    files = _parse(data, name)
    pool = DescriptorPool()
    for file in files.values():
        _add(file, files, pool, set(), name)
    services = [found for file_name in files for found in pool.FindFileByName(file_name).services_by_name.values()]
    annotated = tuple(service for service in services if _is_annotated(service))
    if not annotated:
        held = ", ".join(service.full_name for service in services) or "none"
        raise DescriptorError(
            f"{name}: no method has a google.api.http annotation, so there is nothing to serve (services: {held})"
        )
    return annotated


def files_in(data: bytes) -> Iterator[FileDescriptorProto]:
    """The files of a descriptor set, with the options that we read and no other.

    Raises:
        DecodeError: it is no descriptor set.
    """
    for raw in _set_class(()).FromString(data).file:
        imported = (*ANYONES, OWN) if OWN in raw.dependency else ANYONES
        known = _set_class(imported)().file.add()
        known.ParseFromString(raw.SerializeToString())
        known.DiscardUnknownFields()
        yield FileDescriptorProto.FromString(known.SerializeToString())


@cache
def _set_class(options: tuple[str, ...]) -> Any:
    """FileDescriptorSet in a pool that knows no options but those of these files."""
    pool = DescriptorPool()
    for file in (FileDescriptorSet.DESCRIPTOR.file.name, *options):
        bundled = _bundled(file)
        if bundled is None:
            raise RuntimeError(f"{file} is not installed")
        _add(bundled, {}, pool, set(), file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(FileDescriptorSet.DESCRIPTOR.full_name))


def _parse(data: bytes, name: str) -> Mapping[str, FileDescriptorProto]:
    try:
        files = {file.name: file for file in files_in(data)}
    except DecodeError:
        raise DescriptorError(f"{name} is not a FileDescriptorSet: {HOW}") from None
    if not files or "" in files:
        raise DescriptorError(f"{name} is not a FileDescriptorSet: {HOW}")
    return files


def _add(
    file: FileDescriptorProto,
    files: Mapping[str, FileDescriptorProto],
    pool: DescriptorPool,
    above: set[str],
    name: str,
) -> None:
    """Adds a file after those that it imports."""
    if _is_in(pool, file.name):
        return
    if file.name in above:
        raise DescriptorError(f"{name}: {file.name} imports itself")
    for wanted in file.dependency:
        imported = files.get(wanted) or _bundled(wanted)
        if imported is None:
            raise DescriptorError(f"{name}: {file.name} imports {wanted}, which the file does not hold: {HOW}")
        _add(imported, files, pool, above | {file.name}, name)
    try:
        pool.AddSerializedFile(file.SerializeToString())
    except TypeError as error:
        raise DescriptorError(f"{name}: {file.name} is not valid: {error}") from None


def _is_in(pool: DescriptorPool, file: str) -> bool:
    try:
        pool.FindFileByName(file)
    except KeyError:
        return False
    return True


def _bundled(file: str) -> FileDescriptorProto | None:
    """A file that every installation has, such as those of protobuf and google/api."""
    found = FileDescriptorProto()
    try:
        descriptor_pool.Default().FindFileByName(file).CopyToProto(found)
    except KeyError:
        return None
    return found


def _is_annotated(service: ServiceDescriptor) -> bool:
    return any(method.GetOptions().HasExtension(annotations_pb2.http) for method in service.methods)
