"""How much of a file is holes: bytes that are read as zeros, and that nobody ever wrote."""

import errno
import os

# A file may have as many parts as it has blocks: what lies behind these is taken for a hole.
MOST_PARTS = 10_000
BLOCK = 512


def bytes_in_holes(descriptor: int) -> int:
    """Bytes of an open regular file that are in holes; 0 where its file system does not tell. Moves its position.

    Raises:
        OSError: it can't be looked at.
    """
    status = os.fstat(descriptor)
    # What was compressed takes fewer blocks, too: only where it is is certain.
    if status.st_blocks * BLOCK >= status.st_size or not hasattr(os, "SEEK_DATA"):
        return 0
    written, at = 0, 0
    try:
        for _ in range(MOST_PARTS):
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
            at = os.lseek(descriptor, begin, os.SEEK_HOLE)
            written += at - begin
    except OSError as error:
        if error.errno == errno.EINVAL:
            return 0
        # There are no data any more.
        if error.errno != errno.ENXIO:
            raise
    return max(0, status.st_size - written)
