"""Plain Python values to protobuf's and back: enums by their short names, instants, spans."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger.v1.job_pb2 import JobState

TERMINAL_STATES: Final = frozenset({
    JobState.JOB_STATE_COMPLETED,
    JobState.JOB_STATE_FAILED,
    JobState.JOB_STATE_CANCELLED,
})  # fmt: skip


class EnumType(Protocol):
    """An enum as the stubs have it, such as `JobState`."""

    @property
    def DESCRIPTOR(self) -> EnumDescriptor:  # noqa: N802 - protobuf's name
        """What the enum is."""


def is_terminal(state: JobState.ValueType) -> bool:
    """Whether a job in this state never changes again."""
    return state in TERMINAL_STATES


def short_name(enum: EnumType, number: int) -> str:
    """`running` for `short_name(JobState, JobState.JOB_STATE_RUNNING)`; the number itself where it has no name."""
    return descriptor_short_name(enum.DESCRIPTOR, number)


def descriptor_short_name(descriptor: EnumDescriptor, number: int) -> str:
    """The same from an enum's descriptor."""
    value = descriptor.values_by_number.get(number)
    return str(number) if value is None else value.name.removeprefix(_prefix(descriptor)).lower()


def enum_number(enum: EnumType, name: str) -> Any:
    """The value of a short name.

    Raises:
        ValueError: the enum has no such value; the message lists those it has.
    """
    value = enum.DESCRIPTOR.values_by_name.get(_prefix(enum.DESCRIPTOR) + name.upper())
    if value is None or not value.number:
        raise ValueError(f"{name!r} is none of {', '.join(short_names(enum))}")
    return value.number


def short_names(enum: EnumType) -> list[str]:
    """All short names but the one for unspecified."""
    return [short_name(enum, value.number) for value in enum.DESCRIPTOR.values if value.number]


def duration(span: float | timedelta) -> Duration:
    """A span from seconds, or from a timedelta."""
    message = Duration()
    message.FromTimedelta(span if isinstance(span, timedelta) else timedelta(seconds=span))
    return message


def timestamp(instant: datetime) -> Timestamp:
    """An instant; one without a time zone is taken as UTC."""
    message = Timestamp()
    message.FromDatetime(instant if instant.tzinfo else instant.replace(tzinfo=UTC))
    return message


def instant(message: Timestamp) -> datetime:
    """A datetime in UTC."""
    return message.ToDatetime(tzinfo=UTC)


def _prefix(descriptor: EnumDescriptor) -> str:
    """What the names of an enum's values begin with: that of its first, `..._UNSPECIFIED`."""
    return descriptor.values[0].name.removesuffix("UNSPECIFIED")
