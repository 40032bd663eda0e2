"""`jobledger demo`: a server, a real job, its log, artifacts and receipt, a cancellation, and a look through REST."""

import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobledger.cli.session import NOT_VALID, fail, run_async

if TYPE_CHECKING:
    from jobledger.cli.demo_server import DemoServer


@click.command(name="demo")
@click.option("--keep", is_flag=True, help="Keep the demonstration's data, to look at it later.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where to keep it. Default: a temporary directory.")
def command(keep: bool, data_dir: Path | None) -> None:
    """Shows on this machine what Jobledger does, in under half a minute."""
    kept = keep or data_dir is not None
    directory = data_dir or Path(tempfile.mkdtemp(prefix="jobledger-demo-"))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        run_async(_demo(directory.resolve(), kept=kept))
    finally:
        if not kept:
            shutil.rmtree(directory, ignore_errors=True)


async def _demo(directory: Path, *, kept: bool) -> None:
    from jobledger.cli.demo_server import DemoError, running_server
    from jobledger.cli.demo_steps import show_all

    try:
        async with running_server(directory) as server:
            await show_all(server)
    except DemoError as error:
        fail(f"the demonstration failed: {error}", NOT_VALID)
    _what_next(server, kept=kept)


def _what_next(server: "DemoServer", *, kept: bool) -> None:
    """Commands that work as they are, in the order in which one would try them."""
    from jobledger.endpoint import default_data_dir

    program = shlex.quote(_program())
    data_dir = server.data_dir if kept else default_data_dir()
    on = f" --data-dir {shlex.quote(str(data_dir))}" if kept else ""
    token = (
        f'"Authorization: Bearer $(cat {shlex.quote(str(data_dir / server.token_file.relative_to(server.data_dir)))})"'
    )
    print(f"""
All of it held. The demonstration's server is stopped. Next:

  {program} up{on}
      starts a server; leave it running, and in another terminal:
  {program} run{on} --follow -- {shlex.quote(sys.executable)} -c 'print("hello")'
  {program} ls{on}
  curl -s -H {token} http://127.0.0.1:8080/v1/jobs
  {_grpcurl()} -plaintext -H {token} 127.0.0.1:50051 list
  http://127.0.0.1:8080/docs
      is the API's reference, for the browser""")


def _program() -> str:
    """How this program was called, so that it can be called again from here."""
    called = Path(sys.argv[0])
    return f"{sys.executable} -m jobledger.cli" if called.name == "__main__.py" else str(called)


def _grpcurl() -> str:
    """The grpcurl beside this Python, where there is one."""
    beside = Path(sys.executable).with_name("grpcurl")
    return shlex.quote(str(beside)) if beside.exists() else "grpcurl"
