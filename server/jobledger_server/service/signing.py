"""The installation's keys: one signs receipts, another the checkpoints of the log over them.

In the directory of the keys:

    receipt.key   private key of receipts (PEM, 0600)
    log.key       private key of the log (PEM, 0600)
    keys.json     public keys of receipts, now and before, as ListSigningKeys answers
    log.vkey      public key of the log, as C2SP verifiers take it

To change the receipt key, move `receipt.key` away and start again: a new one is made, and `keys.json` keeps the old
public key, so that old receipts stay verifiable. To revoke a key, give it a `revoked_at` in `keys.json` as well.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import json_format
from jobledger.receipts import key_id
from jobledger.tlog import Checkpoint, NoteKey, sign_checkpoint
from jobledger.v1.receipt_service_pb2 import ListSigningKeysResponse, SigningKey

from jobledger_server.access.private_files import PrivateFileError, open_directory, read_private, replace_file
from jobledger_server.core.ports import Clock
from jobledger_server.core.times import timestamp

ALGORITHM = "ed25519"


class KeyRingError(Exception):
    """The keys can't be used; the message names the file and what to do about it."""


class KeyRing:
    """Signs receipts and checkpoints, and says with which keys. The private keys stay in memory and on disk."""

    def __init__(
        self, *, receipt_key: Ed25519PrivateKey, log_key: Ed25519PrivateKey, keys: Sequence[SigningKey]
    ) -> None:
        self._receipt_key = receipt_key
        self._receipt_key_id = key_id(_public_pem(receipt_key))
        self._log_key = log_key
        self._keys = tuple(keys)

    @classmethod
    def open(cls, directory: Path, clock: Clock) -> Self:
        """Reads the keys; makes directory and keys where there are none.

        Raises:
            KeyRingError: a file is a link, someone else's, open to others, no key, or the receipt key is revoked.
            OSError: the disk.
        """
        try:
            open_directory(directory)
            receipt_key = _load_or_make(directory / "receipt.key")
            log_key = _load_or_make(directory / "log.key")
        except PrivateFileError as error:
            raise KeyRingError(str(error)) from error
        keys = _with_current(_read_keys(directory / "keys.json"), _public_pem(receipt_key), clock.now(), directory)
        _write_keys(directory / "keys.json", keys)
        ring = cls(receipt_key=receipt_key, log_key=log_key, keys=keys)
        replace_file(directory / "log.vkey", f"{ring.log_key}\n".encode(), mode=0o644)
        return ring

    def sign(self, data: bytes) -> tuple[str, bytes]:
        """Signs with the receipt key: the key's id, and 64 bytes. The same data gives the same signature."""
        return self._receipt_key_id, self._receipt_key.sign(data)

    def keys(self) -> Sequence[SigningKey]:
        """The keys with which receipts are and were signed, newest first."""
        return self._keys

    @property
    def log_key(self) -> NoteKey:
        """The log's public key; its name, and the origin of the checkpoints, is made from the key itself."""
        name = f"jobledger.dev/log/{key_id(_public_pem(self._log_key))[:16]}"
        return NoteKey(name=name, public_key=self._log_key.public_key().public_bytes_raw())

    def checkpoint(self, size: int, root: bytes) -> str:
        """The log's state as a signed note. The caller never asks for two that contradict each other."""
        key = self.log_key
        return sign_checkpoint(Checkpoint(origin=key.name, size=size, root=root), key, self._log_key.sign)


def _load_or_make(path: Path) -> Ed25519PrivateKey:
    pem = read_private(path)
    if pem is None:
        made = Ed25519PrivateKey.generate()
        replace_file(path, _private_pem(made), mode=0o600)
        return made
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise KeyRingError(f"{path} is no private key in PEM: restore it, or move it away to get a new one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyRingError(f"{path} is not an Ed25519 key: restore it, or move it away to get a new one")
    return key


def _with_current(known: Sequence[SigningKey], pem: bytes, now: int, directory: Path) -> list[SigningKey]:
    """The known keys and the current one, newest first; whichever signed until now stops."""
    current_id = key_id(pem)
    current = SigningKey(key_id=current_id, algorithm=ALGORITHM, public_key_pem=pem.decode(), valid_from=timestamp(now))
    others: list[SigningKey] = []
    for key in known:
        if key.key_id == current_id:
            current.CopyFrom(key)
        else:
            others.append(_ended(key, now))
    if current.HasField("revoked_at"):
        raise KeyRingError(
            f"{directory / 'receipt.key'} is revoked in {directory / 'keys.json'}: move it away to get a new one"
        )
    current.ClearField("valid_until")
    return [current, *others]


def _ended(key: SigningKey, now: int) -> SigningKey:
    ended = SigningKey()
    ended.CopyFrom(key)
    if not ended.HasField("valid_until"):
        ended.valid_until.CopyFrom(timestamp(now))
    return ended


def _read_keys(path: Path) -> Sequence[SigningKey]:
    try:
        return list(json_format.Parse(path.read_bytes(), ListSigningKeysResponse()).keys)
    except FileNotFoundError:
        return []
    except json_format.ParseError as error:
        raise KeyRingError(f"{path} can't be read: mend it or restore it ({error})") from error


def _write_keys(path: Path, keys: Sequence[SigningKey]) -> None:
    text = json_format.MessageToJson(ListSigningKeysResponse(keys=keys), preserving_proto_field_name=True)
    replace_file(path, f"{text}\n".encode(), mode=0o644)


def _public_pem(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
