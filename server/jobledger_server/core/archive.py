"""The text of the archive: two lines of JSON for each batch of receipts.

    {"first": 17, "events": 204, "receipts": [{"envelope": "...", "workspace_id": "...", ...}, ...]}
    {"checkpoint": "...", "frontier": ["<hex>", ...]}

The second line seals the first: its checkpoint is a signed note (C2SP) over the log up to and with these receipts, and
an extension line of it is the SHA-256 of the first line. So one signature covers order, bytes, and what stands beside
the envelopes. The frontier lets who appends go on without reading what is there; its root is that of the checkpoint.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jobledger import dsse
from jobledger.tlog import Checkpoint, LogProofError
from jobledger.v1.job_pb2 import Artifact, Job

from jobledger_server.core.frontier import Frontier
from jobledger_server.core.ports.archive import ArchiveError, SealedJob

EXTENSION = "archive sha256:"
BODY_START, SEAL_START = b'{"first"', b'{"checkpoint"'
# Not for the archive: what a job was given may be secret in ways that its receipt is not, and outlive DeleteJob there.
PRIVATE = ("env", "stdin")


@dataclass(frozen=True, slots=True)
class ArchiveSeal(Checkpoint):
    """A checkpoint that covers the line before it, too."""

    body_sha256: str

    def __str__(self) -> str:
        return f"{Checkpoint.__str__(self)}{EXTENSION}{self.body_sha256}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch as it was read. Its hashes fit together; nobody has looked at a signature yet.

    Attributes:
        first: leaf index of the first receipt.
        events: number of the last event when it was archived.
        note: the signed checkpoint; `checkpoint` is what it says.
        frontier: of the log with these receipts.
    """

    first: int
    events: int
    receipts: Sequence[SealedJob]
    note: str
    checkpoint: Checkpoint
    frontier: Frontier


def sealed(
    jobs: Sequence[SealedJob], *, events: int, frontier: Frontier, origin: str, sign: Callable[[Checkpoint], str]
) -> tuple[bytes, str]:
    """Two lines for the archive, and their checkpoint.

    Args:
        frontier: of the log with these receipts.
        origin: of the log.
        sign: makes a signed note.
    """
    document = {"first": jobs[0].leaf_index, "events": events, "receipts": [_written(job) for job in jobs]}
    body = json.dumps(document, separators=(",", ":")).encode()
    digest = hashlib.sha256(body).hexdigest()
    note = sign(ArchiveSeal(origin=origin, size=len(frontier), root=frontier.root(), body_sha256=digest))
    seal = json.dumps({"checkpoint": note, "frontier": [peak.hex() for peak in frontier.peaks]}, separators=(",", ":"))
    return b"%b\n%b\n" % (body, seal.encode()), note


def read_batch(body: bytes, seal: bytes) -> Batch:
    """Reads the two lines of a batch.

    Raises:
        ArchiveError: they can't be read, or do not belong together; the message says how.
    """
    try:
        note, frontier = _seal(json.loads(seal))
        checkpoint = Checkpoint.parse(note)
        extension = note.split("\n")[3]
    except (ValueError, LookupError, TypeError, LogProofError) as error:
        raise ArchiveError(f"the seal can't be read ({error})") from None
    if extension != EXTENSION + hashlib.sha256(body).hexdigest():
        raise ArchiveError("the receipts were changed after they were sealed: their bytes have another hash")
    if len(frontier) != checkpoint.size or frontier.root() != checkpoint.root:
        raise ArchiveError("the frontier is not that of the checkpoint")
    try:
        document = json.loads(body)
        first = int(document["first"])
        receipts = [_read(index, entry) for index, entry in enumerate(document["receipts"], first)]
        events = int(document["events"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArchiveError(f"the receipts can't be read ({error})") from None
    return Batch(first=first, events=events, receipts=receipts, note=note, checkpoint=checkpoint, frontier=frontier)


def _seal(document: Any) -> tuple[str, Frontier]:
    note = document["checkpoint"]
    peaks = [bytes.fromhex(peak) for peak in document["frontier"]]
    return note, Frontier(Checkpoint.parse(note).size, peaks)


def _written(sealed_job: SealedJob) -> dict[str, Any]:
    return {
        "envelope": sealed_job.envelope.decode(),
        "workspace_id": sealed_job.workspace_id,
        "number": sealed_job.number,
        "job": None if sealed_job.job is None else _public(sealed_job.job),
        "artifacts": [_text(artifact.SerializeToString(deterministic=True)) for artifact in sealed_job.artifacts],
    }


def _public(job: Job) -> str:
    public = Job()
    public.CopyFrom(job)
    for name in PRIVATE:
        public.spec.ClearField(name)  # type: ignore[arg-type]
    return _text(public.SerializeToString(deterministic=True))


def _read(index: int, entry: Any) -> SealedJob:
    envelope = entry["envelope"].encode()
    return SealedJob(
        leaf_index=index,
        envelope=envelope,
        leaf=hashlib.sha256(dsse.decode(envelope).payload).digest(),
        workspace_id=entry["workspace_id"],
        job=None if entry["job"] is None else Job.FromString(base64.b64decode(entry["job"])),
        number=entry["number"],
        artifacts=[Artifact.FromString(base64.b64decode(text)) for text in entry["artifacts"]],
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
