"""What the parts of a descriptor are, where its own types leave it open."""

from functools import cache

from google.protobuf import descriptor_pool, wrappers_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

# What Python's messages have of their own: a field of such a name can be read, but the message can't be used.
OWN_NAMES = frozenset(dir(Message))
# Types such as google.protobuf.Int64Value, by their full names.
WRAPPERS = frozenset(message.full_name for message in wrappers_pb2.DESCRIPTOR.message_types_by_name.values())


def descriptor_of(message: Message) -> Descriptor:
    """The type of a message."""
    descriptor = message.DESCRIPTOR
    if not isinstance(descriptor, Descriptor):
        raise TypeError(f"{type(message).__name__} is not a class of a message")
    return descriptor


def message_of(field: FieldDescriptor) -> Descriptor:
    """The message type of a field that has one."""
    if field.message_type is None:
        raise TypeError(f"{field.full_name} is not of a message type")
    return field.message_type


def enum_of(field: FieldDescriptor) -> EnumDescriptor:
    """The enum type of a field that has one."""
    if field.enum_type is None:
        raise TypeError(f"{field.full_name} is not of an enum type")
    return field.enum_type


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map: its entries are messages of key and value."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def map_parts(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor]:
    """Key and value of a map."""
    entry = message_of(field)
    return entry.fields_by_name["key"], entry.fields_by_name["value"]


def find_message(pool: DescriptorPool, full_name: str) -> Descriptor | None:
    """The message type of that name: of a pool, else of the modules that this process has imported."""
    for each in (pool, descriptor_pool.Default()):
        try:
            found: Descriptor = each.FindMessageTypeByName(full_name)
        except KeyError:
            continue
        return found
    return None


@cache
def hiding_field(message: Descriptor) -> FieldDescriptor | None:
    """A field whose name is that of a method of messages, such as `DESCRIPTOR`, in a type or a type within it."""
    seen, left = {message.full_name}, [message]
    while left:
        for field in left.pop().fields:
            if field.name in OWN_NAMES:
                return field
            inner = field.message_type
            if inner is not None and inner.full_name not in seen:
                seen.add(inner.full_name)
                left.append(inner)
    return None


def assign(target: Message, made: Message) -> None:
    """Copies a message into one of the same type, which another pool may have defined."""
    if type(target) is type(made):
        target.CopyFrom(made)
    else:
        target.SetInParent()
        target.ParseFromString(made.SerializeToString())
