"""The archive of the signed envelopes: what is left of the receipts when the database is lost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jobledger.v1.job_pb2 import Artifact, Job


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedJob:
    """A receipt in the order of the log, and what its job is beside it.

    Attributes:
        envelope: the DSSE envelope, as it was stored.
        leaf: what the Merkle log holds of it, 32 bytes.
        job: None where the job was deleted; its receipt stays.
        number: the job's number, base of the ids of its log entries; 0 where the job was deleted.
    """

    leaf_index: int
    envelope: bytes
    leaf: bytes
    workspace_id: str
    job: Job | None = None
    number: int = 0
    artifacts: Sequence[Artifact] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveHead:
    """How far an archive goes.

    Attributes:
        size: receipts in it.
        peaks: of the frontier of their tree.
        last_leaf: what the log holds of the last one; empty where there is none.
        note: the signed checkpoint under which the last one was archived; empty where there is none.
    """

    size: int = 0
    peaks: Sequence[bytes] = ()
    last_leaf: bytes = b""
    note: str = ""


class ArchiveError(Exception):
    """The archive is not as it was written; the message names the place, what was found, and what to do."""


class Deletions(Protocol):
    """Remembers, whatever becomes of the database, that jobs were deleted."""

    async def note_deleted(self, job_ids: Sequence[str]) -> None:
        """Says it of these jobs, durably. To be called before they are: what is not told of comes back.

        Raises:
            StoreUnavailableError: it can't be written just now.
        """


class Archive(Protocol):
    """Batches of receipts in leaf order, each sealed by a signed checkpoint. Its methods may block."""

    def open(self) -> ArchiveHead:
        """Reads how far it goes; what a crash left half written goes.

        Raises:
            ArchiveError: its end is not as it was written, or is missing.
            OSError: it can't be read.
        """

    def append(self, batch: bytes, *, first: int, note: str) -> None:
        """Adds what `core.archive.sealed` made, durably, or leaves it as it was.

        Args:
            first: leaf index of its first receipt.
            note: its checkpoint.

        Raises:
            OSError: it could not be written; doing so again is safe.
        """

    def note_deleted(self, note: str) -> None:
        """Keeps a signed note that says which jobs were deleted, durably.

        Raises:
            OSError: it could not be written; doing so again is safe.
        """

    def retire(self) -> str:
        """Moves all of it aside, and begins anew with nothing. Returns where it is now."""
