"""The program as a whole: help, signals, pipes, completion."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import pytest
from cli.program import Run, Start
from click.testing import CliRunner
from jobledger.cli import main, output, params
from jobledger.v1.job_pb2 import JobState, JobSummary, LogEntry
from jobledger.v1.job_service_pb2 import GetLogsResponse, ListJobsResponse, TailLogsResponse
from sdk.fake_server import FakeServer


@pytest.mark.parametrize("verb", main.VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    result = CliRunner().invoke(main.cli, [verb, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_help_loads_neither_grpc_nor_the_server() -> None:
    """What one types most often must answer at once."""
    check = (
        "import sys; from click.testing import CliRunner; from jobledger.cli.main import cli;"
        "result = CliRunner().invoke(cli, ['--help']); assert 'Exit codes' in result.output;"
        "sys.exit(bool({'grpc', 'aiohttp', 'jobledger_server'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_verb_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("serve", "jobledger_missing.main:serve", "jobledger.commands")
    monkeypatch.setattr(main, "entry_points", lambda **_: [entry])
    result = CliRunner().invoke(main.cli, ["serve", "--port", "0"])
    assert result.exit_code == 1
    assert "pip install 'jobledger[server]'" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["nope"],
        ["run"],
        ["run", "--timeout", "soon", "--", "x"],
        ["run", "--label", "novalue", "--", "x"],
        ["run", "--config", "[1]", "--", "x"],
        ["ls", "--state", "asleep"],
        ["logs", "job_1", "--since", "yesterday-ish"],
        ["logs", "job_1", "--raw", "--json"],
        ["logs", "job_1", "--follow", "--contains", "x"],
        ["cancel"],
    ],
)
def test_wrong_usage_is_code_2(arguments: list[str]) -> None:
    environ = {"JOBLEDGER_TARGET": "127.0.0.1:1", "JOBLEDGER_TOKEN": "t"}
    assert CliRunner(env=environ).invoke(main.cli, arguments).exit_code == 2


async def test_no_server_is_code_3_and_says_how_to_start_one(run: Run, tmp_path: Path) -> None:
    outcome = await run("ls", JOBLEDGER_TARGET="127.0.0.1:1")
    assert (outcome.code, outcome.err) == (
        3, "Error: No server answers at 127.0.0.1:1 (connection refused): `jobledger up` starts one\n"
    )  # fmt: skip
    outcome = await run("ls", JOBLEDGER_TARGET=f"unix:{tmp_path}/none")
    assert outcome.err == f"Error: No server answers at {tmp_path}/none (no such socket): `jobledger up` starts one\n"


async def test_an_output_that_can_not_be_written_is_one_line(server: FakeServer) -> None:
    server.on("ListJobs", ListJobsResponse(jobs=[JobSummary(job_id="job_abc")]))
    env = {**os.environ, "JOBLEDGER_TARGET": server.target, "JOBLEDGER_TOKEN": "t"}
    for verb in (["ls"], ["completion", "bash"]):
        with Path("/dev/full").open("wb") as full:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "jobledger.cli", *verb), stdout=full, stderr=asyncio.subprocess.PIPE, env=env
            )
        async with asyncio.timeout(20):
            _, err = await process.communicate()
        assert (process.returncode, err) == (2, b"Error: The output can't be used: No space left on device\n")


def test_what_is_in_the_way_is_not_told_as_a_job_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise click.ClickException("the server runs")

    assert main.exit_code_of(refuse) == 2
    assert capsys.readouterr().err == "Error: the server runs\n"


async def test_ctrl_c_ends_a_stream_quietly(server: FakeServer, start: Start) -> None:
    def forever(_: Any) -> Any:
        async def items() -> AsyncIterator[TailLogsResponse]:
            yield TailLogsResponse(log=LogEntry(job_sequence=1, message="first"))
            await asyncio.Event().wait()

        return items()

    server.on("TailLogs", forever)
    process = await start("logs", "-f", "job_1")
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert b"first" in await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")


async def test_a_reader_that_goes_away_is_no_error(server: FakeServer, start: Start) -> None:
    entries = [LogEntry(job_sequence=n, message="x" * 4000) for n in range(500)]
    server.on("GetLogs", GetLogsResponse(logs=entries, total=500))
    process = await start("logs", "job_1")
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(20):
        await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]
        err = await process.stderr.read()
        code = await process.wait()
    assert (code, err) == (141, b"")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    result = CliRunner().invoke(main.cli, ["completion", shell])
    assert "_JOBLEDGER_COMPLETE" in result.output


async def test_job_ids_complete_from_the_server(server: FakeServer, run: Run) -> None:
    server.on("ListJobs", ListJobsResponse(jobs=[JobSummary(job_id="job_abc", state=JobState.JOB_STATE_RUNNING)]))
    asked = {"COMP_WORDS": "jobledger get job_", "COMP_CWORD": "2", "_JOBLEDGER_COMPLETE": "bash_complete"}
    assert (await run(**asked)).out == "plain,job_abc\n"
    assert server.requests["ListJobs"][0].search == "job_"


async def test_completion_without_a_server_offers_nothing(run: Run) -> None:
    asked = {"COMP_WORDS": "jobledger get ", "COMP_CWORD": "2", "_JOBLEDGER_COMPLETE": "bash_complete"}
    outcome = await run(JOBLEDGER_TARGET="127.0.0.1:1", **asked)
    assert (outcome.out.strip(), outcome.err) == ("", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90.0), ("1.5s", 1.5), ("250ms", 0.25), ("10m", 600.0), ("2h", 7200.0), ("1d", 86400.0)],
)
def test_durations_are_written_as_people_write_them(text: str, expected: float) -> None:
    assert params.seconds(text) == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.21, "4.2s"), (59.0, "59s"), (190, "3m10s"), (18120, "5h02m"), (183600, "2d03h"), (-1, "0.0s")],
)
def test_spans_are_shown_as_people_read_them(seconds: float, text: str) -> None:
    assert output.span(seconds) == text
