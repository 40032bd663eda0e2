"""The first token's copy for clients on this machine, in a file that only the owner can read."""

from pathlib import Path

from jobledger_server.access.admin import TokenAdmin
from jobledger_server.access.private_files import PrivateFileError, create_private, read_private
from jobledger_server.access.tokens import TOKEN, digest
from jobledger_server.core.ports import TokenStore

REMEDY = "remove it (rm '{path}'), and the next start makes a new one with every scope but `worker`"


async def provide_token_file(path: Path, *, admin: TokenAdmin, tokens: TokenStore, now: int) -> None:
    """Makes a token with every scope and writes it there, unless the file holds one of this server's.

    Raises:
        PrivateFileError: what is there is a link, someone else's, open to others, or no valid token of this server.
    """
    written = read_private(path)
    if written is None:
        create_private(path, (await admin.create_first() + "\n").encode())
        return
    match = TOKEN.fullmatch(written.strip())
    record = None if match is None else await tokens.token(match[1].decode())
    if match is None or record is None or record.digest != digest(match[0]):
        raise PrivateFileError(f"{path} holds no token of this server: {REMEDY.format(path=path)}")
    if record.revoked_at or (record.expires_at and record.expires_at <= now):
        raise PrivateFileError(f"{path} holds a token that was revoked or has expired: {REMEDY.format(path=path)}")
