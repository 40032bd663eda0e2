"""The texts of a transparency log, as C2SP defines them: checkpoints (signed notes) and proofs of inclusion.

Specifications: c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-proof.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from jobledger import ed25519, merkle, strict_json

PROOF_HEADER = "c2sp.org/tlog-proof@v1"
_ED25519 = b"\x01"
_NAME = re.compile(r"[^\s+\ud800-\udfff]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_HEX_HASH = re.compile(r"[0-9a-fA-F]{64}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")


class LogProofError(ValueError):
    """A text of the log that can't be read, or proves nothing; the message says why."""


class LogFormatError(LogProofError):
    """A text that is not of the log at all, so that nothing can be said of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteKey:
    """The Ed25519 key that signs a log's checkpoints: the log's name, and the public key's 32 raw bytes."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """4 bytes by which a signature names its key."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public_key).digest()[:4]

    def __str__(self) -> str:
        """`name+id+key`, as verifiers take it."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(_ED25519 + self.public_key)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads what `str` gives.

        Raises:
            LogFormatError: it is no such key.
        """
        parts = text.strip().split("+", 2)
        if len(parts) != 3:
            raise LogFormatError("a log's key has the form name+id+key")
        encoded = _bytes(parts[2])
        key = cls(name=parts[0], public_key=encoded[1:])
        right = encoded[:1] == _ED25519 and len(encoded) == 33 and _NAME.fullmatch(key.name)
        if not right or key.key_id.hex() != parts[1]:
            raise LogFormatError("a log's key is Ed25519, and its id belongs to its name")
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A state of a log: whose it is, how many leaves it has, and the root over them (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def __str__(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads what `str` gives; extension lines are ignored.

        Raises:
            LogFormatError: it is no checkpoint.
        """
        lines = text.split("\n")
        if len(lines) < 4 or not lines[0] or not _NUMBER.fullmatch(lines[1]):
            raise LogFormatError("a checkpoint has three lines: origin, number of leaves, root")
        return cls(origin=lines[0], size=int(lines[1]), root=_hash(lines[2]))


def sign_checkpoint(checkpoint: Checkpoint, key: NoteKey, sign: Callable[[bytes], bytes]) -> str:
    """The checkpoint as a signed note; `sign` makes Ed25519 signatures with the private half of `key`."""
    return sign_note(str(checkpoint), key, sign)


def sign_note(text: str, key: NoteKey, sign: Callable[[bytes], bytes]) -> str:
    """A text, which ends with a line's end, as a signed note."""
    return f"{text}\n— {key.name} {_base64(key.key_id + sign(text.encode()))}\n"


def note_of(text: str) -> str:
    """A signed note: itself, or from the JSON in which `GET /v1/receipts/checkpoint` answers it.

    Raises:
        LogFormatError: it is JSON without a note.
    """
    if not _is_json(text):
        return text
    match _json(text):
        case {"note": str(note)}:
            return note
        case _:
            raise LogFormatError("a checkpoint in JSON has its text in the member `note`")


def open_checkpoint(note: str, key: NoteKey) -> Checkpoint:
    """The checkpoint in a signed note. Signatures of other keys (witnesses) are ignored. Needs `cryptography`.

    Raises:
        LogProofError: `key` did not sign it; LogFormatError, it can't be read.
    """
    text, lines = _parts(note)
    checkpoint = Checkpoint.parse(text)
    if checkpoint.origin != key.name:
        raise LogProofError(f"the checkpoint is of the log {checkpoint.origin}, not of {key.name}")
    if not any(_signed_by(key, line, text) for line in lines):
        raise LogProofError("the checkpoint has no valid signature of the log's key")
    return checkpoint


def open_note(note: str, key: NoteKey) -> str:
    """The text of a signed note. Needs `cryptography`.

    Raises:
        LogProofError: it can't be read, or `key` did not sign it.
    """
    text, lines = _parts(note)
    if not any(_signed_by(key, line, text) for line in lines):
        raise LogProofError("the note has no valid signature of the log's key")
    return text


def _parts(note: str) -> tuple[str, list[str]]:
    """The text and the lines of the signatures."""
    text, blank, lines = note.rpartition("\n\n")
    # A lone surrogate, which JSON can spell, is no text: it could not have been signed.
    if not blank or _SURROGATE.search(note):
        raise LogFormatError("a checkpoint is a text, an empty line, and signatures")
    return f"{text}\n", lines.splitlines()


@dataclass(frozen=True, slots=True, kw_only=True)
class InclusionProof:
    """Proof that a leaf is in a log: its index from 0, hashes from the leaf up, the signed checkpoint they lead to."""

    index: int
    path: tuple[bytes, ...]
    note: str

    def __str__(self) -> str:
        """The text of a `.tlog-proof` file."""
        hashes = "".join(f"{_base64(it)}\n" for it in self.path)
        return f"{PROOF_HEADER}\nindex {self.index}\n{hashes}\n{self.note}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a `.tlog-proof` file, or the JSON in which `GET /v1/receipts/inclusion/{job_id}` answers.

        What nothing authenticates is ignored: an `extra` line, and the members beside index, hashes and note.

        Raises:
            LogFormatError: it is no such thing.
        """
        if _is_json(text):
            return cls._of_json(_json(text))
        head, _, note = text.partition("\n\n")
        header, *lines = head.split("\n")
        if lines and lines[0].startswith("extra "):
            del lines[0]
        index = lines[0].removeprefix("index ") if lines else ""
        if header != PROOF_HEADER or not _NUMBER.fullmatch(index) or not lines[0].startswith("index "):
            raise LogFormatError(f"a proof begins with the lines {PROOF_HEADER} and index N")
        return cls(index=int(index), path=tuple(map(_hash, lines[1:])), note=note)

    @classmethod
    def _of_json(cls, document: object) -> Self:
        match document:
            # ProtoJSON spells integers of 64 bits as text.
            case {"leaf_index": int() | str() as index, "hashes": list(hashes), "checkpoint": {"note": str(note)}} if (
                _NUMBER.fullmatch(str(index))
            ):
                return cls(index=int(index), path=hex_hashes(hashes), note=note)
            case _:
                raise LogFormatError("a proof in JSON has the members leaf_index, hashes and checkpoint with its note")

    def check(self, leaf: bytes, key: NoteKey) -> Checkpoint:
        """The checkpoint under which the log holds `leaf`. Needs `cryptography`.

        Raises:
            LogProofError: the proof does not hold.
        """
        checkpoint = open_checkpoint(self.note, key)
        if not merkle.inclusion_holds(
            hashed_leaf=merkle.leaf_hash(leaf),
            index=self.index,
            size=checkpoint.size,
            path=self.path,
            root=checkpoint.root,
        ):
            raise LogProofError(f"the hashes do not lead from leaf {self.index} to the root of the checkpoint")
        return checkpoint


def _signed_by(key: NoteKey, line: str, text: str) -> bool:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    parts = _SIGNATURE_LINE.fullmatch(line)
    if not parts or parts[1] != key.name:
        return False
    signature = _bytes(parts[2])
    if signature[:4] != key.key_id:
        return False
    return ed25519.signed_by(Ed25519PublicKey.from_public_bytes(key.public_key), signature[4:], text.encode())


def hex_hashes(members: Sequence[object]) -> tuple[bytes, ...]:
    """SHA-256 hashes from their spelling in JSON, hex.

    Raises:
        LogFormatError: one is none.
    """
    if not all(isinstance(it, str) and _HEX_HASH.fullmatch(it) for it in members):
        raise LogFormatError("each hash is 64 digits in hex")
    return tuple(bytes.fromhex(str(it)) for it in members)


def _is_json(text: str) -> bool:
    return text.lstrip().startswith("{")


def _json(text: str) -> object:
    try:
        return strict_json.loads(text.encode())
    except ValueError as error:
        raise LogFormatError(f"not JSON: {error}") from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise LogFormatError(f"not base64: {text[:60]!r}") from error


def _hash(text: str) -> bytes:
    data = _bytes(text)
    if len(data) != hashlib.sha256().digest_size:
        raise LogFormatError(f"not a SHA-256 hash: {text[:60]!r}")
    return data
