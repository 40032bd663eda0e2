"""What of an archive is to be believed: envelopes that a known key signed, in the order that checkpoints hold."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jobledger import dsse, strict_json
from jobledger.receipt_format import PAYLOAD_TYPE, canonical
from jobledger.receipts import KeysFileError, load_keys
from jobledger.tlog import Checkpoint, LogProofError, NoteKey, open_checkpoint, open_note

from jobledger_server.archive.deletions import FILE, deleted_jobs, notes
from jobledger_server.archive.files import ReceiptArchive
from jobledger_server.core.archive import Batch
from jobledger_server.core.frontier import Frontier
from jobledger_server.core.ports.archive import ArchiveError, SealedJob


@dataclass(frozen=True, slots=True)
class Trusted:
    """Public keys: of receipts by their ids, revoked ones too, since a log keeps what they signed; and of the log."""

    receipts: Mapping[str, Ed25519PublicKey]
    logs: Sequence[NoteKey]

    @classmethod
    def read(cls, directory: Path) -> "Trusted":
        """From the directory of an installation's keys.

        Raises:
            ArchiveError: there are none, or they can't be read.
        """
        try:
            entries = load_keys(directory / "keys.json")
            logs = [NoteKey.parse(file.read_text()) for file in sorted(directory.glob("log.vkey*"))]
        except (OSError, KeysFileError, LogProofError) as error:
            raise ArchiveError(
                f"the public keys in {directory} can't be read ({error}), and nothing is believed without them: "
                "restore keys.json and log.vkey from where you keep the keys"
            ) from None
        found = {name: load_pem_public_key(entry.public_key_pem) for name, entry in entries.items()}
        return cls({name: key for name, key in found.items() if isinstance(key, Ed25519PublicKey)}, logs)

    def deleted(self, archive: ReceiptArchive) -> frozenset[str]:
        """The jobs that were deleted, as signed notes in the archive tell.

        Raises:
            ArchiveError: one can't be read, or no key of the log signed it.
        """
        return frozenset(job_id for note in notes(archive.directory) for job_id in deleted_jobs(self._text(note)))

    def _text(self, note: str) -> str:
        for key in self.logs:
            try:
                return open_note(note, key)
            except LogProofError:
                continue
        raise ArchiveError(f"a deletion in {FILE} is not signed by the log's key (keys/log.vkey): it is forged")

    def opened(self, note: str) -> Checkpoint:
        """What a signed checkpoint says.

        Raises:
            ArchiveError: no key of the log signed it.
        """
        for key in self.logs:
            try:
                return open_checkpoint(note, key)
            except LogProofError:
                continue
        raise ArchiveError("the checkpoint is not signed by the log's key (keys/log.vkey)")


@dataclass(frozen=True, slots=True)
class Believed:
    """A receipt that is to be believed, and up to where events were numbered when it was archived."""

    job: SealedJob
    receipt: dict[str, Any]
    events: int

    @property
    def receipt_bytes(self) -> bytes:
        """As it was stored: its form is canonical."""
        return canonical(self.receipt)


def believed(archive: ReceiptArchive, trusted: Trusted, *, checkpoint: Checkpoint | None = None) -> Iterator[Believed]:
    """The receipts in leaf order. Only with the last one is it certain that none is missing.

    Args:
        checkpoint: a state that the log is known to have had, beside the one that is kept with the archive.

    Raises:
        ArchiveError: something is not as it was signed, or is not there; the message says what.
    """
    frontier = Frontier()
    known = [it for it in (archive.told(), checkpoint) if it is not None]
    for batch in archive.batches():
        where = f"receipts {batch.first} to {batch.first + len(batch.receipts) - 1}"
        try:
            trusted.opened(batch.note)
        except ArchiveError as error:
            raise ArchiveError(f"{where}: {error}") from None
        if batch.first != len(frontier):
            raise ArchiveError(
                f"{where} stand where receipt {len(frontier)} should: parts of the archive were reordered or taken out"
            )
        yield from _believed_of(batch, trusted, frontier, known)
        if (len(frontier), frontier.root()) != (batch.checkpoint.size, batch.checkpoint.root):
            raise ArchiveError(f"{where} do not lead to the root of their checkpoint")
    for state in known:
        if state.size > len(frontier):
            raise ArchiveError(
                f"the archive ends after {len(frontier)} receipts, and a checkpoint has {state.size}: "
                "its end was cut off or moved away"
            )


def _believed_of(batch: Batch, trusted: Trusted, frontier: Frontier, known: Sequence[Checkpoint]) -> Iterator[Believed]:
    for job in batch.receipts:
        receipt = _signed(job, trusted)
        frontier.append(job.leaf)
        for state in known:
            if state.size == len(frontier) and state.root != frontier.root():
                raise ArchiveError(
                    f"the first {state.size} receipts are others than those of the checkpoint: "
                    "archive and checkpoint are of different histories"
                )
        yield Believed(job, receipt, batch.events)


def _signed(job: SealedJob, trusted: Trusted) -> dict[str, Any]:
    """The receipt in an envelope that one of the keys signed."""
    opened = dsse.decode(job.envelope)
    signed = dsse.pae(opened.payload_type, opened.payload)
    if opened.payload_type != PAYLOAD_TYPE or not any(
        _holds(trusted.receipts.get(it.key_id), it.value, signed) for it in opened.signatures
    ):
        raise ArchiveError(f"receipt {job.leaf_index} is not signed by any key of keys.json: it is forged, or damaged")
    match strict_json.loads(opened.payload):
        case {"predicate": {"job_id": str(), "run_id": str(), "summary": dict()} as receipt}:
            return dict(receipt)
        case _:
            raise ArchiveError(f"receipt {job.leaf_index} is signed, and is no receipt")


def _holds(key: Ed25519PublicKey | None, signature: bytes, signed: bytes) -> bool:
    if key is None:
        return False
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def read_checkpoint(path: Path, trusted: Trusted) -> Checkpoint:
    """A checkpoint that was kept elsewhere: a signed note, or the JSON in which GetCheckpoint answers.

    Raises:
        ArchiveError: it can't be read, or the log's key did not sign it.
    """
    try:
        text = path.read_text()
        note = json.loads(text)["note"] if text.startswith("{") else text
    except (OSError, ValueError, LookupError) as error:
        raise ArchiveError(f"{path} can't be read: {error}") from None
    return trusted.opened(str(note))
