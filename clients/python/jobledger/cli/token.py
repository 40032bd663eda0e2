"""`jobledger token`: who may use the server."""

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from jobledger.cli import output
from jobledger.cli.params import seconds
from jobledger.cli.private_file import PrivateFile
from jobledger.cli.session import REFUSED, USAGE, connected, fail, json_option

if TYPE_CHECKING:
    from jobledger.client import Client
    from jobledger.v1.engine_service_pb2 import IssuedToken, TokenInfo

SCOPES = ("jobs:read", "jobs:create", "jobs:cancel", "jobs:exec", "worker", "admin")
_NOT_SHOWN: Final = {
    True: "not shown: --reveal prints the whole token",
    False: "none: it is the certificate that lets you in",
}
HEADER = ("TOKEN", "NAME", "SCOPES", "WORKSPACES", "STATE")

token_argument = click.argument("token_id", metavar="TOKEN_ID")


@click.group(name="token")
def command() -> None:
    """Shows, makes, rotates and revokes tokens."""


@command.command(name="show")
@click.option("--reveal", is_flag=True, help="Print the token itself, where a file holds it.")
@json_option
@connected
async def show(client: "Client", /, *, reveal: bool, as_json: bool) -> None:
    """Says where your token is and what it may do; the token itself only when asked."""
    source = _token_source(client)
    token = _revealed(client) if reveal else None
    info = await client.whoami()
    if as_json:
        from jobledger.cli.plain import plain

        output.document({**plain(info), "token_source": source, **({"token": token} if token else {})})
        return
    print(f"found in    {source}")
    print(f"token       {info.token_id} ({output.one_line(info.name)})")
    print(f"secret      {token or _NOT_SHOWN[bool(client.endpoint.token)]}")
    print(f"scopes      {' '.join(info.scopes)}")
    print(f"workspaces  {' '.join(info.workspaces) or 'all'}")


def _revealed(client: "Client") -> str:
    from jobledger.local_files import read_token

    source = _token_source(client)
    if not client.endpoint.token:
        fail(f"There is none to reveal: no token was sent, it is the certificate in {source} that lets you in", REFUSED)
    if not Path(source).is_file():
        fail(f"The token is not in a file, but in {source}: look there", REFUSED)
    return read_token(source)


def _token_source(client: "Client") -> str:
    """Where the token was found; the certificate where none was sent."""
    return str(click.get_current_context().params["token_file"] or client.endpoint.token_source)


@command.command(name="list")
@json_option
@connected
async def list_tokens(client: "Client", /, *, as_json: bool) -> None:
    """Lists all tokens, without their secrets."""
    from jobledger.v1.engine_service_pb2 import ListTokensResponse

    tokens = await client.tokens()
    if as_json:
        output.document(ListTokensResponse(tokens=tokens))
    else:
        output.table(HEADER, [_row(token) for token in tokens])


@command.command(name="create")
@click.option("--name", required=True, help="What it is for.")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True, help="Repeatable.")
@click.option("--workspace", "workspaces", multiple=True, help="Bind it to this workspace; repeatable. Default: all.")
@click.option("--expires-in", type=seconds, metavar="DURATION", help="How long it works. Default: until it is revoked.")
@click.option("--output", "-o", "to", type=click.Path(path_type=Path), help="Write it to this file, for you alone.")
@json_option
@connected
async def create(
    client: "Client",
    /,
    *,
    name: str,
    scopes: tuple[str, ...],
    workspaces: tuple[str, ...],
    expires_in: float | None,
    to: Path | None,
    as_json: bool,
) -> int:
    """Makes a token and prints it: it is not shown again."""
    with _place_for(to) as place:
        issued = await client.create_token(name, scopes, workspaces=workspaces, expires_in=expires_in)
        return _hand_over(issued, place, as_json=as_json)


@command.command(name="rotate")
@token_argument
@click.option("--output", "-o", "to", type=click.Path(path_type=Path), help="Write it to this file, for you alone.")
@json_option
@connected
async def rotate(client: "Client", /, *, token_id: str, to: Path | None, as_json: bool) -> int:
    """Replaces a token by a new one and prints that; the old one works for 60 s more.

    Where the old one is what your token file holds, the new one is put there.
    """
    with _place_for(to) as place:
        issued = await client.rotate_token(token_id)
        if client.endpoint.token:
            _renew_own(Path(_token_source(client)), token_id, issued.token)
        return _hand_over(issued, place, as_json=as_json)


def _renew_own(path: Path, token_id: str, token: str) -> None:
    """Puts the new token in the place of the old one in the file that the caller's was read from.

    What can't be replaced is only told of: the new token is not lost, since it is printed after this.
    """
    reason: object = "it is a symbolic link" if path.is_symlink() else None
    try:
        if not path.is_file() or not path.read_text("utf-8").startswith(f"jl_{token_id}_"):
            return
        if reason is None:
            with PrivateFile(path, keep_owner=True) as place:
                place.write(f"{token}\n")
    except (OSError, ValueError) as error:
        reason = error
    told = "holds the new token"
    if reason is not None:
        told = f"still holds the old token ({reason}): put the new one there within 60 s"
    print(f"{path} {told}", file=sys.stderr)


@command.command(name="revoke")
@token_argument
@json_option
@connected
async def revoke(client: "Client", /, *, token_id: str, as_json: bool) -> None:
    """Ends a token at once."""
    info = await client.revoke_token(token_id)
    output.document(info) if as_json else print(f"{info.token_id} is revoked")


def _place_for(to: Path | None) -> AbstractContextManager[PrivateFile | None]:
    """What the token is to be written to: open before there is one, so that it is not made in vain."""
    return nullcontext() if to is None else PrivateFile(to)


def _hand_over(issued: "IssuedToken", place: PrivateFile | None, *, as_json: bool) -> int:
    """Writes it, or prints it: also where it can't be written, since the server tells it once. Gives the exit code."""
    failed = False
    try:
        if place is not None:
            place.write(f"{issued.token}\n")
    except OSError as error:
        failed = True
        output.note(f"Error: {place} can't be written ({error.strerror}): keep the token from here")
    is_kept = place is not None and not failed
    if as_json:
        output.document(issued.info if is_kept else issued)
    else:
        print(place if is_kept else issued.token)
    return USAGE if failed else 0


def _row(token: "TokenInfo") -> tuple[str, ...]:
    if token.HasField("revoked_at"):
        state = "revoked"
    elif token.HasField("expires_at"):
        left = -output.seconds_between(token.expires_at)
        state = f"for {output.span(left)}" if left > 0 else "expired"
    else:
        state = "valid"
    return token.token_id, token.name, " ".join(token.scopes), " ".join(token.workspaces) or "all", state
