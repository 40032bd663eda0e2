"""The installation's keys: one signs receipts, another the checkpoints of the log over them.

The receipt key is a file, or is held by a command (`external_signer`); the log's is always a file: `key_files`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jobledger import dsse
from jobledger.receipts import key_id
from jobledger.tlog import Checkpoint, NoteKey, sign_checkpoint, sign_note
from jobledger.v1.receipt_service_pb2 import SigningKey

from jobledger_server.access.private_files import PrivateFileError, open_directory
from jobledger_server.core.ports import Clock, ReceiptStore
from jobledger_server.service import key_files
from jobledger_server.service.external_signer import ExternalSigner, OtherKeyError, SigningError
from jobledger_server.service.key_files import KeyRingError

log = logging.getLogger(__name__)
# What a signer is tried out with: its type keeps it from being taken for anything else that is signed.
PROBE = dsse.pae("application/vnd.jobledger.probe", b"{}")


class KeyRing:
    """Signs receipts and checkpoints, and says with which keys. The private keys stay in memory and on disk."""

    def __init__(
        self,
        *,
        receipt_key: Ed25519PrivateKey | ExternalSigner,
        log_key: Ed25519PrivateKey,
        keys: Sequence[SigningKey],
    ) -> None:
        public = receipt_key.public_key if isinstance(receipt_key, ExternalSigner) else receipt_key.public_key()
        self._receipt_key = receipt_key
        self._receipt_key_id = key_id(key_files.public_pem(public))
        self._log_key = log_key
        self._keys = tuple(keys)

    @classmethod
    def open(
        cls, directory: Path, clock: Clock, *, external: ExternalSigner | None = None, established: bool = False
    ) -> Self:
        """Reads the keys; makes directory and keys where there are none.

        Args:
            external: who has the receipt key, where it is not a file.
            established: there are receipts already, so that the log's key must be there.

        Raises:
            KeyRingError: a file is a link, someone else's, open to others, no key, or lost; or the receipt key is
                revoked.
            OSError: the disk.
        """
        try:
            open_directory(directory)
            log_key = key_files.load_log_key(directory, established=established)
            key_files.publish(directory, key_files.note_key(log_key))
            receipt_key = external or key_files.load_or_make(directory / key_files.RECEIPT_KEY)
        except PrivateFileError as error:
            raise KeyRingError(str(error)) from error
        public = receipt_key.public_key if isinstance(receipt_key, ExternalSigner) else receipt_key.public_key()
        keys = key_files.note_current(directory, public, clock)
        return cls(receipt_key=receipt_key, log_key=log_key, keys=keys)

    @property
    def signs_at_once(self) -> bool:
        """Whether `sign` can be used; otherwise `sign_elsewhere` must be."""
        return not isinstance(self._receipt_key, ExternalSigner)

    @property
    def trouble(self) -> str:
        """Why the last signature could not be had; empty where it could."""
        return self._receipt_key.trouble if isinstance(self._receipt_key, ExternalSigner) else ""

    def sign(self, data: bytes) -> tuple[str, bytes]:
        """Signs with the receipt key: the key's id, and 64 bytes. The same data gives the same signature."""
        if isinstance(self._receipt_key, ExternalSigner):
            raise TypeError("the receipt key is elsewhere: its signatures take time")
        return self._receipt_key_id, self._receipt_key.sign(data)

    async def sign_elsewhere(self, data: bytes) -> tuple[str, bytes]:
        """As `sign`, by whoever has the key.

        Raises:
            SigningError: there is no signature just now.
        """
        if isinstance(self._receipt_key, ExternalSigner):
            return self._receipt_key_id, await self._receipt_key.sign(data)
        return self.sign(data)

    def keys(self) -> Sequence[SigningKey]:
        """The keys with which receipts are and were signed, newest first."""
        return self._keys

    @property
    def log_key(self) -> NoteKey:
        """The log's public key."""
        return key_files.note_key(self._log_key)

    def checkpoint(self, size: int, root: bytes) -> str:
        """The log's state as a signed note. The caller never asks for two that contradict each other."""
        return self.sign_checkpoint(Checkpoint(origin=self.log_key.name, size=size, root=root))

    def sign_checkpoint(self, checkpoint: Checkpoint) -> str:
        """A checkpoint of this log, such as one with an extension line, as a signed note. As for `checkpoint`."""
        return sign_checkpoint(checkpoint, self.log_key, self._log_key.sign)

    def sign_note(self, text: str) -> str:
        """A text of this installation's, no checkpoint, as a signed note of the log's key."""
        return sign_note(text, self.log_key, self._log_key.sign)


async def open_ring(directory: Path, *, clock: Clock, store: ReceiptStore, external: ExternalSigner | None) -> KeyRing:
    """The keys of an installation, as `KeyRing.open` has them; a lost key of its log is noticed by its receipts.

    Raises:
        KeyRingError: as `KeyRing.open`; or `external` has another key than it should, or is new and does not sign.
        OSError: the disk.
    """
    if external is not None:
        await _try_out(external, directory)
    lost = not (directory / key_files.LOG_KEY).exists()
    established = lost and bool(await store.receipt_leaves())
    return KeyRing.open(directory, clock, external=external, established=established)


async def _try_out(external: ExternalSigner, directory: Path) -> None:
    """Has a signer sign once. One that this installation knows may be away for a while: what can be read is then."""
    try:
        await external.sign(PROBE)
    except SigningError as error:
        known = {key.key_id for key in key_files.read_keys(directory / key_files.KEYS)}
        if isinstance(error, OtherKeyError) or key_id(key_files.public_pem(external.public_key)) not in known:
            raise KeyRingError(
                f"signer: {error}. It was given bytes to sign, to try it out: mend the command, or the settings"
                " `signer` and `signer_key`"
            ) from None
        log.error("the signer does not sign just now, and jobs can't end until it does: %s", error)  # noqa: TRY400 - it says it all


__all__ = ["KeyRing", "KeyRingError", "open_ring"]
