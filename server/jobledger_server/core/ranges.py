"""Parts of a sequence of bytes."""

from dataclasses import dataclass

from jobledger_server.core.errors import Reason, ServiceError


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes from `start`, of `size` in all."""

    start: int
    length: int
    size: int


def byte_range(size: int, *, offset: int, length: int | None) -> ByteRange:
    """The part that is there of what was asked for.

    Args:
        offset: first byte; negative counts from the end.
        length: number of bytes, to the end where None.

    Raises:
        ServiceError: RANGE_NOT_SATISFIABLE where it begins beyond the end. The whole of nothing is fine.
    """
    start = max(0, size + offset) if offset < 0 else offset
    if start > size or (start == size and (start or length is not None)):
        raise ServiceError(
            Reason.ERROR_REASON_RANGE_NOT_SATISFIABLE,
            f"The content has {size} bytes; the range begins at {offset}",
            metadata={"size": str(size)},
        )
    rest = size - start
    return ByteRange(start, rest if length is None else min(length, rest), size)
