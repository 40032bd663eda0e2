"""Options that limit what a job may use."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from jobledger.cli.params import seconds, size

if TYPE_CHECKING:
    from jobledger.v1.job_pb2 import JobLimits

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS: Final = (
    click.option("--cpu-time", type=seconds, metavar="DURATION", help="CPU time of all its processes together."),
    click.option("--memory", type=size, metavar="SIZE", help="Memory of all its processes together: 512M, 2G."),
    click.option("--open-files", type=int, metavar="N", help="Open files of each process."),
    click.option("--file-size", type=size, metavar="SIZE", help="Size of any file that it writes."),
    click.option("--disk", type=size, metavar="SIZE", help="What its directory takes on disk."),
    click.option("--log-size", type=size, metavar="SIZE", help="Size of its log; past it the middle is dropped."),
)


def limit_options(command: Command) -> Command:
    """The options, as parameters that `take_limits` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_limits(options: dict[str, Any]) -> "JobLimits | None":
    """Takes what was given for the options out of `options`. None where that was nothing."""
    from jobledger.v1.job_pb2 import JobLimits
    from jobledger.values import duration

    cpu_time = options.pop("cpu_time")
    limits = JobLimits(
        cpu_time=None if cpu_time is None else duration(cpu_time),
        memory_bytes=options.pop("memory"),
        open_files=options.pop("open_files"),
        file_size_bytes=options.pop("file_size"),
        disk_bytes=options.pop("disk"),
        log_bytes=options.pop("log_size"),
    )
    return limits if limits.ListFields() else None
