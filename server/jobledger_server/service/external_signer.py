"""A signer outside of this program: a command that has the key, such as one that asks an HSM or a KMS.

It gets the bytes to sign on its standard input and answers 64 bytes on its standard output: the raw Ed25519 signature.
"""

import asyncio
import shlex
import shutil
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from jobledger_server.core.ports import StoreUnavailableError
from jobledger_server.service import commands
from jobledger_server.service.key_files import KeyRingError

TIMEOUT_SECONDS = 10.0
AT_ONCE = 4
SIGNATURE_BYTES = 64
TOLD_CHARACTERS = 200


class SigningError(StoreUnavailableError):
    """No signature could be had, so the end of a job was not stored; doing it again is safe."""


class OtherKeyError(SigningError):
    """The command signs with another key than the one that it should have."""


class ExternalSigner:
    """Asks the command for signatures, and believes none that its public key does not confirm."""

    def __init__(
        self, command: tuple[str, ...], public_key: Ed25519PublicKey, *, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        self._command = command
        self.public_key = public_key
        self._timeout = timeout
        self._free = asyncio.Semaphore(AT_ONCE)
        self.trouble = ""

    @classmethod
    def of(cls, command: str, key_file: Path | None) -> Self | None:
        """The signer that the settings `signer` and `signer_key` name; None where they name none.

        Raises:
            KeyRingError: one is missing, the program is not there, or the file is no Ed25519 key in PEM.
        """
        if not command and key_file is None:
            return None
        if not command or key_file is None:
            raise KeyRingError("`signer` and `signer_key` go together: a command, and the file of its public key")
        try:
            words = tuple(shlex.split(command))
        except ValueError as error:
            raise KeyRingError(f"signer: {command!r} is no command line: {error}") from None
        if not words or shutil.which(words[0]) is None:
            raise KeyRingError(f"signer: {command!r} names no program that can be run here")
        return cls(words, _public_key(key_file))

    async def sign(self, data: bytes) -> bytes:
        """The signature, 64 bytes. At most 4 commands run at a time; others wait.

        Raises:
            SigningError: the command failed or took too long; OtherKeyError, it did not sign these bytes with its key.
        """
        async with self._free:
            try:
                signature = await self._answer(data)
                self.public_key.verify(signature, data)
            except InvalidSignature:
                self.trouble = f"{self._command[0]} gave no signature of its key (signer_key) over the bytes it got"
                raise OtherKeyError(self.trouble) from None
            except (OSError, SigningError) as error:
                self.trouble = f"{self._command[0]} did not sign: {error}"
            else:
                self.trouble = ""
                return signature
        raise SigningError(self.trouble)

    async def _answer(self, data: bytes) -> bytes:
        try:
            said = await commands.run(self._command, data, most=SIGNATURE_BYTES, patience=self._timeout)
        except TimeoutError:
            raise SigningError(f"no answer within {self._timeout:g} s") from None
        if len(said.answer) > SIGNATURE_BYTES:
            raise SigningError(f"it answered more than {SIGNATURE_BYTES} bytes")
        if said.exit_code:
            raise SigningError(f"exit code {said.exit_code}, {_line(said.told)}")
        if len(said.answer) != SIGNATURE_BYTES:
            raise SigningError(f"it answered {len(said.answer)} bytes, not {SIGNATURE_BYTES}, {_line(said.told)}")
        return said.answer


def _line(told: bytes) -> str:
    lines = told.decode(errors="replace").split("\n")
    return next((line[:TOLD_CHARACTERS] for line in reversed(lines) if line.strip()), "without a word on stderr")


def _public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise KeyRingError(f"signer_key: {path} can't be read as a public key in PEM: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyRingError(f"signer_key: {path} is not an Ed25519 key")
    return key
