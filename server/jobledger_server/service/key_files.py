"""The files of an installation's keys: how they are read, made, rotated and revoked.

In the directory of the keys:

    receipt.key   private key of receipts (PEM, 0600); not there where a command signs
    log.key       private key of the log (PEM, 0600)
    keys.json     public keys of receipts, now and before, and of the log, as ListSigningKeys answers
    log.vkey      public key of the log, as C2SP verifiers take it

Whoever changes them holds the lock of the data directory: a server reads them when it starts, and then no more.
"""

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf import json_format
from jobledger.receipts import key_id
from jobledger.tlog import NoteKey
from jobledger.v1.receipt_service_pb2 import ListSigningKeysResponse, SigningKey

from jobledger_server.access.private_files import open_directory, read_private, replace_file
from jobledger_server.core.ports import Clock
from jobledger_server.core.times import timestamp

ALGORITHM = "ed25519"
RECEIPT_KEY, LOG_KEY, KEYS, LOG_VKEY = "receipt.key", "log.key", "keys.json", "log.vkey"


class KeyRingError(Exception):
    """The keys can't be used; the message names the file and what to do about it."""


def load_or_make(path: Path) -> Ed25519PrivateKey:
    """The private key in a file, made where there is none.

    Raises:
        KeyRingError: it is none.
        PrivateFileError: others may have read it.
    """
    return load(path) or make(path)


def load(path: Path) -> Ed25519PrivateKey | None:
    """The private key in a file, or None where there is no file.

    Raises:
        KeyRingError: it is none.
        PrivateFileError: others may have read it.
    """
    pem = read_private(path)
    if pem is None:
        return None
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise KeyRingError(f"{path} is no private key in PEM: restore it, or move it away to get a new one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyRingError(f"{path} is not an Ed25519 key: restore it, or move it away to get a new one")
    return key


def make(path: Path) -> Ed25519PrivateKey:
    """Writes a new private key in place of whatever was there."""
    made = Ed25519PrivateKey.generate()
    replace_file(path, _private_pem(made), mode=0o600)
    return made


def load_log_key(directory: Path, *, established: bool) -> Ed25519PrivateKey:
    """The log's key. It is the log's identity, so only an installation without a log is given a new one.

    Args:
        established: there are receipts already.

    Raises:
        KeyRingError: the key is lost, or another than it was.
        PrivateFileError: others may have read it.
    """
    path, published = directory / LOG_KEY, directory / LOG_VKEY
    key = load(path)
    if key is None and (established or published.exists()):
        raise KeyRingError(
            f"{path} is gone, and with it the identity of the log of receipts: restore it from where the keys are kept."
            " If it is lost for good, `jobledger keys new-log` begins a new log, and no checkpoint of the old one"
            " says anything about receipts from then on"
        )
    if key is not None and published.exists() and published.read_text().strip() != str(note_key(key)):
        raise KeyRingError(
            f"{path} is not the key whose public half is in {published}: restore the one that belongs there,"
            f" or remove {published} if this one does"
        )
    return key or make(path)


def note_key(key: Ed25519PrivateKey) -> NoteKey:
    """The log's public key; its name, and the origin of the checkpoints, is made from the key itself."""
    name = f"jobledger.dev/log/{key_id(public_pem(key.public_key()))[:16]}"
    return NoteKey(name=name, public_key=key.public_key().public_bytes_raw())


def new_log(directory: Path) -> NoteKey:
    """Begins a new log in place of one whose key is lost: makes the key, and publishes it.

    Raises:
        KeyRingError: the key is not lost.
        PrivateFileError: others may have read the directory.
    """
    open_directory(directory)
    if load(directory / LOG_KEY) is not None:
        raise KeyRingError(f"{directory / LOG_KEY} is there: the log needs no new key")
    key = note_key(make(directory / LOG_KEY))
    publish(directory, key)
    return key


def publish(directory: Path, key: NoteKey) -> None:
    """Writes the log's public key, and notes it in the file of the others.

    Raises:
        KeyRingError: that file can't be read.
    """
    replace_file(directory / LOG_VKEY, f"{key}\n".encode(), mode=0o644)
    if (directory / KEYS).exists():
        write_keys(directory / KEYS, read_keys(directory / KEYS))


def rotate(directory: Path, clock: Clock) -> Sequence[SigningKey]:
    """Replaces the receipt key. The old private key is gone then; its public half stays, and says until when it signed.

    Returns:
        The keys as they are now, the new one first.

    Raises:
        KeyRingError: there is no receipt key.
        PrivateFileError: others may have read it.
    """
    open_directory(directory)
    path = directory / RECEIPT_KEY
    if load(path) is None:
        raise KeyRingError(
            f"{path} is not there. A new installation has a key after its first start; where a command signs, rotate"
            " its key by the settings `signer` and `signer_key`"
        )
    make(path)
    return note_current(directory, load_or_make(path).public_key(), clock)


def revoke(directory: Path, wanted: str, clock: Clock) -> Sequence[SigningKey]:
    """Notes that a key is not to be trusted, from now on and for all that it ever signed; a current one is replaced.

    Args:
        wanted: the key's id, or enough of its beginning.

    Raises:
        KeyRingError: there is no such key, several begin so, or it is revoked already.
        PrivateFileError: others may have read the receipt key.
    """
    keys = read_keys(directory / KEYS)
    found = [key for key in keys if wanted and key.key_id.startswith(wanted)]
    if len(found) != 1:
        problem = "no key" if not found else f"{len(found)} keys"
        raise KeyRingError(f"{problem} of {directory / KEYS} begins with {wanted}: `jobledger keys list` shows them")
    (key,) = found
    if key.HasField("revoked_at"):
        raise KeyRingError(f"{key.key_id} is revoked already")
    key.revoked_at.CopyFrom(timestamp(clock.now()))
    _end(key, clock.now())
    # First of all: if this is cut short, a server refuses to start with the key rather than to sign with it.
    write_keys(directory / KEYS, keys)
    current = load(directory / RECEIPT_KEY)
    if current is not None and key_id(public_pem(current.public_key())) == key.key_id:
        return rotate(directory, clock)
    return keys


def note_current(directory: Path, current: Ed25519PublicKey, clock: Clock) -> Sequence[SigningKey]:
    """Writes down which key signs from now on.

    Returns:
        The known keys and the current one, newest first; whichever signed until now stops.

    Raises:
        KeyRingError: the current key is revoked, or the file can't be read.
    """
    keys = _with_current(read_keys(directory / KEYS), public_pem(current), clock.now(), directory)
    write_keys(directory / KEYS, keys)
    return keys


def _with_current(known: Sequence[SigningKey], pem: bytes, now: int, directory: Path) -> list[SigningKey]:
    current_id = key_id(pem)
    current = SigningKey(key_id=current_id, algorithm=ALGORITHM, public_key_pem=pem.decode(), valid_from=timestamp(now))
    others: list[SigningKey] = []
    for key in known:
        if key.key_id == current_id:
            current.CopyFrom(key)
        else:
            _end(key, now)
            others.append(key)
    if current.HasField("revoked_at"):
        raise KeyRingError(
            f"{directory / RECEIPT_KEY} is revoked in {directory / KEYS}: move it away to get a new one"
            " (where a command signs, give it another key, and name that in `signer_key`)"
        )
    current.ClearField("valid_until")
    return [current, *others]


def _end(key: SigningKey, now: int) -> None:
    if not key.HasField("valid_until"):
        key.valid_until.CopyFrom(timestamp(now))


def read_keys(path: Path) -> list[SigningKey]:
    """The public keys, newest first; none where there is no file.

    Raises:
        KeyRingError: the file can't be read.
    """
    try:
        return list(json_format.Parse(path.read_bytes(), ListSigningKeysResponse()).keys)
    except FileNotFoundError:
        return []
    except json_format.ParseError as error:
        raise KeyRingError(f"{path} can't be read: mend it or restore it ({error})") from error


def write_keys(path: Path, keys: Sequence[SigningKey]) -> None:
    """Writes the public keys in place of those that were there, with the log's beside them."""
    text = json_format.MessageToJson(public_keys(path.parent, keys), preserving_proto_field_name=True)
    replace_file(path, f"{text}\n".encode(), mode=0o644)


def public_keys(directory: Path, keys: Sequence[SigningKey]) -> ListSigningKeysResponse:
    """These keys, and the log's as it was published; that is empty where the log has no key yet."""
    published = directory / LOG_VKEY
    return ListSigningKeysResponse(keys=keys, log_key=published.read_text().strip() if published.exists() else "")


def public_pem(key: Ed25519PublicKey) -> bytes:
    """The public key in PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
