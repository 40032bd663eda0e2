"""`jobledger run`: submit a job."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobledger.cli import output
from jobledger.cli.limits import limit_options, take_limits
from jobledger.cli.log_lines import show_entries
from jobledger.cli.params import complete_job_id, label_option, pair, seconds
from jobledger.cli.session import connected, json_option

if TYPE_CHECKING:
    from jobledger.client import Client
    from jobledger.v1.job_pb2 import Job, JobInput, LogEntry


@click.command(name="run", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.argument("command_line", metavar="[--] COMMAND...", nargs=-1)
@click.option("--name", help="Short for --label name=NAME.")
@label_option
@click.option("--env", "-e", multiple=True, metavar="KEY[=VALUE]", help="Environment; without a value: yours.")
@click.option("--workspace", "workspace_id", help="Workspace; made on first use.")
@click.option("--working-dir", help="Absolute path to run in, on the server's machine.")
@click.option("--stdin", help="Text for its standard input; `open` to take follow-ups; `-` to read yours.")
@click.option("--config", help="JSON object, or @FILE that holds one.")
@click.option(
    "--artifact", "artifacts", multiple=True, metavar="GLOB", help="What under output/ to keep. Default: all."
)
@click.option("--input-file", multiple=True, metavar="PATH", help="File on the server's machine to copy into input/.")
@click.option("--input-ref", multiple=True, metavar="NAME", help="Name of something elsewhere, for the record.")
@click.option("--tool", "tools", multiple=True, metavar="NAME", help="Program whose file the receipt is to name.")
@click.option("--timeout", type=seconds, metavar="DURATION", help="How long an attempt may run.")
@click.option("--queue-timeout", type=seconds, metavar="DURATION", help="How long it may wait.")
@click.option("--grace-period", type=seconds, metavar="DURATION", help="From SIGTERM to SIGKILL, when cancelled.")
@click.option("--priority", type=click.Choice(["low", "normal", "high"]), help="Which of the waiting jobs goes first.")
@click.option("--max-attempts", type=click.IntRange(min=1), help="How often it may be tried.")
@click.option(
    "--retry-backoff",
    type=seconds,
    metavar="DURATION",
    help="Wait before the second attempt, then doubled.",
)
@limit_options
@click.option("--queue", help="Queue to wait in.")
@click.option("--type", "job_type", help="Kind of job, where it is not a command: see `jobledger types`.")
@click.option("--rerun-of", metavar="JOB", shell_complete=complete_job_id, help="Repeat this job's specification.")
@click.option("--idempotency-key", help="The same key and job: no second job.")
@click.option("--wait", is_flag=True, help="Wait for its end, and exit as it did.")
@click.option("--follow", "-f", is_flag=True, help="Show its log as it runs, and exit as it did.")
@json_option
@connected
async def command(
    client: "Client",
    /,
    *,
    command_line: tuple[str, ...],
    idempotency_key: str | None,
    wait: bool,
    follow: bool,
    as_json: bool,
    **options: Any,
) -> int | None:
    """Submits a job and prints its id: jobledger run -- python train.py"""
    if not (command_line or options["job_type"] or options["rerun_of"]):
        raise click.UsageError("What should run? Write it after --: jobledger run -- python train.py")
    job = await client.submit(command_line, idempotency_key=idempotency_key, **_fields(**options))
    if not (wait or follow):
        output.document(job) if as_json else print(job.job_id)
        return None
    return await _until_the_end(client, job, follow=follow, as_json=as_json)


async def _until_the_end(client: "Client", job: "Job", *, follow: bool, as_json: bool) -> int:
    from jobledger.cli.outcome import describe_end, exit_code_for

    if not as_json:
        output.note(job.job_id) if follow else print(job.job_id, flush=True)
    try:
        if follow:
            async for page in client.tail_log_pages(job.job_id):
                show_entries(page, as_json=True) if as_json else _show(page)
        job = await client.wait(job.job_id)
    except asyncio.CancelledError:
        output.note(f"{job.job_id} goes on without you; `jobledger cancel {job.job_id}` ends it")
        raise
    if as_json:
        output.line(job) if follow else output.document(job)
    else:
        output.note(describe_end(job))
    return exit_code_for(job)


def _show(page: "Sequence[LogEntry]") -> None:
    """Lines of the job's where the job wrote them."""
    for from_stderr, entries in groupby(page, lambda entry: entry.subsystem == "stderr"):
        lines = (output.one_line(entry.message) for entry in entries)
        output.block(lines, sys.stderr if from_stderr else sys.stdout)


def _fields(
    *,
    name: str | None,
    labels: tuple[tuple[str, str], ...],
    env: tuple[str, ...],
    config: str | None,
    stdin: str | None,
    input_file: tuple[str, ...],
    input_ref: tuple[str, ...],
    **plain: Any,
) -> Any:
    """Fields of the specification; what was not given is left out."""
    limits = take_limits(plain)
    fields = {key: value for key, value in {**plain, "limits": limits}.items() if value not in (None, ())}
    if named := {**({"name": name} if name else {}), **dict(labels)}:
        fields["labels"] = named
    if env:
        fields["env"] = dict(map(_variable, env))
    if config is not None:
        fields["config"] = _config(config)
    if stdin is not None:
        fields["stdin"] = sys.stdin.read() if stdin == "-" else stdin
    if inputs := _inputs(input_file, input_ref):
        fields["inputs"] = inputs
    return fields


def _variable(text: str) -> tuple[str, str]:
    if "=" in text:
        return pair(text)
    if text not in os.environ:
        raise click.UsageError(f"--env {text}: you have no such variable; write {text}=VALUE")
    return text, os.environ[text]


def _config(text: str) -> dict[str, Any]:
    try:
        config = json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--config: {error}") from error
    if not isinstance(config, dict):
        raise click.UsageError("--config: it is not a JSON object")
    return config


def _inputs(files: tuple[str, ...], references: tuple[str, ...]) -> "list[JobInput]":
    from jobledger.v1.job_pb2 import InputType, JobInput

    return [
        *(JobInput(type=InputType.INPUT_TYPE_FILE, file_path=path) for path in files),
        *(JobInput(type=InputType.INPUT_TYPE_REFERENCE, reference=name) for name in references),
    ]
