"""How values are written on the command line, and how job ids complete."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import click
from click.shell_completion import CompletionItem

STATES: Final = ("queued", "running", "cancelling", "completed", "failed", "cancelled")
LEVELS: Final = ("trace", "debug", "info", "warn", "error")
COMPLETION_SECONDS: Final = 1.0

_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", re.IGNORECASE)


def seconds(value: str | float) -> float:
    """A span: a bare number is seconds, `1.5s`, `10m`, `2h`, `1d`."""
    if not isinstance(value, str):
        return value
    match = _SPAN.fullmatch(value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no duration: write 90, 1.5s, 10m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]


def size(value: str | int) -> int:
    """Bytes: a bare number, or `64K`, `1.5M`, `2G`, `1T`, each 1024 times the one before."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no size: write 65536, 64K, 512M or 1.5G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def instant(value: str | datetime) -> datetime:
    """A time: RFC 3339, or a span back from now such as `10m`."""
    if isinstance(value, datetime):
        return value
    if _SPAN.fullmatch(value):
        return datetime.now(UTC) - timedelta(seconds=seconds(value))
    try:
        given = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no time: write 2026-01-02T03:04:05Z, or 10m for ten minutes ago"
        ) from None
    return given if given.tzinfo else given.astimezone()


def words(choices: tuple[str, ...]) -> Callable[[str | tuple[str, ...]], tuple[str, ...]]:
    """Some of a set of words, with commas between."""

    def some(value: str | tuple[str, ...]) -> tuple[str, ...]:
        given = tuple(word.strip() for word in value.split(",")) if isinstance(value, str) else value
        for word in given:
            if word not in choices:
                raise click.BadParameter(f"{word!r} is none of {', '.join(choices)}")
        return given

    return some


def pair(value: str | tuple[str, str]) -> tuple[str, str]:
    """`KEY=VALUE`"""
    if not isinstance(value, str):
        return value
    key, separator, rest = value.partition("=")
    if not key or not separator:
        raise click.BadParameter(f"{value!r} is not KEY=VALUE")
    return key, rest


def complete_job_id(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ids of the newest jobs that begin so. Nothing where no server answers at once."""
    import asyncio

    from jobledger.errors import JobledgerError

    try:
        return asyncio.run(asyncio.wait_for(_newest(ctx, incomplete), COMPLETION_SECONDS))
    except (JobledgerError, TimeoutError):
        return []


async def _newest(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    from jobledger.client import Client
    from jobledger.v1.job_pb2 import JobState
    from jobledger.values import short_name

    target, data_dir = ctx.params.get("target"), ctx.params.get("data_dir")
    async with Client.connect(target, data_dir=data_dir, retry_for=0.0) as client:
        page = await client.list(search=incomplete, limit=20)
    return [CompletionItem(job.job_id, help=short_name(JobState, job.state)) for job in page.jobs]


job_argument = click.argument("job_id", metavar="JOB", shell_complete=complete_job_id)
label_option = click.option(
    "--label", "-l", "labels", type=pair, metavar="KEY=VALUE", multiple=True, help="Label; may be repeated."
)
