"""Blobs, put one at a time."""

from jobledger_server.core.ports import Blobs


def put(blobs: Blobs, descriptor: int) -> tuple[str, int]:
    """A batch of one: stores what an open file holds. Returns its hash and size."""
    with blobs.batch() as batch:
        added = batch.add(descriptor)
        batch.keep()
    return added
