"""The texts of a transparency log, as C2SP defines them: checkpoints (signed notes) and proofs of inclusion.

Specifications: c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-proof.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from jobledger import merkle

PROOF_HEADER = "c2sp.org/tlog-proof@v1"
_ED25519 = b"\x01"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")


class LogProofError(ValueError):
    """A text of the log that can't be read, or proves nothing; the message says why."""


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
            LogProofError: it is no such key.
        """
        parts = text.strip().split("+", 2)
        if len(parts) != 3:
            raise LogProofError("a log's key has the form name+id+key")
        encoded = _bytes(parts[2])
        key = cls(name=parts[0], public_key=encoded[1:])
        if encoded[:1] != _ED25519 or len(encoded) != 33 or key.key_id.hex() != parts[1]:
            raise LogProofError("a log's key is Ed25519, and its id belongs to its name")
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
            LogProofError: it is no checkpoint.
        """
        lines = text.split("\n")
        if len(lines) < 4 or not lines[0] or not _NUMBER.fullmatch(lines[1]):
            raise LogProofError("a checkpoint has three lines: origin, number of leaves, root")
        return cls(origin=lines[0], size=int(lines[1]), root=_hash(lines[2]))


def sign_checkpoint(checkpoint: Checkpoint, key: NoteKey, sign: Callable[[bytes], bytes]) -> str:
    """The checkpoint as a signed note; `sign` makes Ed25519 signatures with the private half of `key`."""
    text = str(checkpoint)
    return f"{text}\n— {key.name} {_base64(key.key_id + sign(text.encode()))}\n"


def open_checkpoint(note: str, key: NoteKey) -> Checkpoint:
    """The checkpoint in a signed note. Signatures of other keys (witnesses) are ignored. Needs `cryptography`.

    Raises:
        LogProofError: it can't be read, or `key` did not sign it.
    """
    text, blank, lines = note.rpartition("\n\n")
    if not blank:
        raise LogProofError("a checkpoint is a text, an empty line, and signatures")
    text += "\n"
    checkpoint = Checkpoint.parse(text)
    if checkpoint.origin != key.name:
        raise LogProofError(f"the checkpoint is of the log {checkpoint.origin}, not of {key.name}")
    if not any(_signed_by(key, line, text) for line in lines.splitlines()):
        raise LogProofError("the checkpoint has no valid signature of the log's key")
    return checkpoint


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
        """Reads a `.tlog-proof` file; its `extra` line, which nothing authenticates, is ignored.

        Raises:
            LogProofError: it is no such file.
        """
        head, _, note = text.partition("\n\n")
        header, *lines = head.split("\n")
        if lines and lines[0].startswith("extra "):
            del lines[0]
        index = lines[0].removeprefix("index ") if lines else ""
        if header != PROOF_HEADER or not _NUMBER.fullmatch(index) or not lines[0].startswith("index "):
            raise LogProofError(f"a proof begins with the lines {PROOF_HEADER} and index N")
        return cls(index=int(index), path=tuple(map(_hash, lines[1:])), note=note)

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
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    parts = _SIGNATURE_LINE.fullmatch(line)
    if not parts or parts[1] != key.name:
        return False
    signature = _bytes(parts[2])
    if signature[:4] != key.key_id:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature[4:], text.encode())
    except InvalidSignature:
        return False
    return True


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise LogProofError(f"not base64: {text[:60]!r}") from error


def _hash(text: str) -> bytes:
    data = _bytes(text)
    if len(data) != hashlib.sha256().digest_size:
        raise LogProofError(f"not a SHA-256 hash: {text[:60]!r}")
    return data
