"""What engineers paste: grpcurl without a .proto, curl as `up` prints it, the CLI."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
from support.running import RunningServer, output_file, run_cli

BIN = Path(sys.executable).parent
cli = partial(run_cli, afresh=True)


def tool(name: str) -> str:
    """Path of a program that these tests can't do without."""
    found = shutil.which(name, path=f"{BIN}:{Path('/usr/bin')}:{Path('/bin')}")
    assert found, f"{name} is missing: requirements-dev.lock or the machine has to bring it"
    return found


def grpcurl(server: RunningServer, *arguments: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    header = ["-H", f"authorization: Bearer {token}"] if token else []
    command = [tool("grpcurl"), "-plaintext", *header, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_grpcurl_lists_describes_and_calls_without_a_proto(server: RunningServer) -> None:
    listed = grpcurl(server, server.target, "list", token=server.token)
    assert {"jobledger.v1.JobService", "jobledger.v1.ReceiptService", "grpc.health.v1.Health"} <= set(
        listed.stdout.split()
    ), listed.stderr
    described = grpcurl(server, server.target, "describe", "jobledger.v1.JobService", token=server.token)
    assert "rpc CancelJob" in described.stdout
    request = ("-d", '{"limit": 5}', server.target, "jobledger.v1.JobService/ListJobs")
    called = grpcurl(server, *request, token=server.token)
    assert json.loads(called.stdout)["limit"] == 5


@pytest.mark.parametrize("arguments", [["list"], ["describe", "jobledger.v1.JobService"], ["jobledger.v1.Job/Get"]])
def test_grpcurl_without_a_token_is_unauthenticated(server: RunningServer, arguments: list[str]) -> None:
    refused = grpcurl(server, server.target, *arguments)
    assert refused.returncode != 0
    assert "Unauthenticated" in refused.stderr or "No token" in refused.stderr


def test_health_needs_no_token(server: RunningServer) -> None:
    proto = "grpc.health.v1.Health/Check"
    answer = grpcurl(server, server.target, proto, token=server.token)
    assert json.loads(answer.stdout)["status"] == "SERVING"


def test_the_lines_that_up_prints_work_when_pasted(server: RunningServer) -> None:
    printed_lines_work(server)


def printed_lines_work(server: RunningServer) -> None:
    """Asserts that what it says can be pasted gives an answer."""
    told = output_file(server.data_dir).read_text()
    lines = [line.strip() for line in told.splitlines() if re.match(r"\s+(curl|grpcurl) ", line)]
    assert len(lines) == 2
    for line in lines:
        path = f"{BIN}:/usr/bin:/bin"
        done = subprocess.run(
            ["sh", "-c", line], capture_output=True, text=True, timeout=30, check=False, env={"PATH": path}
        )
        assert done.returncode == 0, done.stderr
        assert "jobs" in json.loads(done.stdout) or "limit" in json.loads(done.stdout)


def test_the_python_example_of_the_readme_ends_with_how_the_job_did(server: RunningServer, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    (example,) = re.findall(r"From Python:\n\n((?:    .*\n|\n)+)", text)
    environment = {**os.environ, "JOBLEDGER_DATA_DIR": str(server.data_dir)}
    command = [sys.executable, "-c", textwrap.dedent(example)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (done.stdout, done.stderr) == ("hello\ncompleted\n", "")


@pytest.mark.parametrize(
    "asked", [("--working-dir", "/proc"), ("--input-file", "/etc/hostname"), ("--env", "K=secret:env:HOME")]
)
def test_what_no_job_may_have_is_refused_and_not_to_be_tried_again(
    server: RunningServer, asked: tuple[str, str]
) -> None:
    refused = cli(server, "run", *asked, "--", "true")
    assert (refused.returncode, refused.stderr.count("\n")) == (4, 1), refused.stderr


def test_the_cli_takes_a_job_from_submission_to_receipt(server: RunningServer, tmp_path: Path) -> None:
    script = "echo one; echo two >&2; echo result > $JOBLEDGER_OUTPUT_DIR/r.txt"
    submitted = cli(server, "run", "--json", "--label", "via=cli", "--", "sh", "-c", script)
    job_id = json.loads(submitted.stdout)["job_id"]
    assert cli(server, "wait", job_id).returncode == 0
    assert json.loads(cli(server, "get", "--json", job_id).stdout)["state"] == "completed"
    assert job_id in cli(server, "ls", "--label", "via=cli").stdout
    assert "two" in cli(server, "logs", "--level", "warn", job_id).stdout
    assert "one" not in cli(server, "logs", "--level", "warn", job_id).stdout
    assert "r.txt" in cli(server, "artifacts", job_id).stdout
    envelope = tmp_path / "receipt.dsse.json"
    envelope.write_text(cli(server, "receipt", "show", "--format", "dsse", job_id).stdout)
    verified = cli(server, "receipt", "verify", str(envelope), "--data-dir", str(server.data_dir))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    tampered = tmp_path / "tampered.dsse.json"
    document = json.loads(envelope.read_text())
    document["signatures"][0]["sig"] = document["signatures"][0]["sig"][::-1]
    tampered.write_text(json.dumps(document))
    assert cli(server, "receipt", "verify", str(tampered), "--data-dir", str(server.data_dir)).returncode == 1


def test_the_cli_cancels(server: RunningServer) -> None:
    job_id = json.loads(cli(server, "run", "--json", "--", "sleep", "600").stdout)["job_id"]
    assert cli(server, "cancel", job_id).returncode == 0
    assert cli(server, "wait", job_id).returncode == 130
    assert "cancelled" in cli(server, "get", job_id).stdout


def test_the_cli_manages_tokens(server: RunningServer) -> None:
    made = cli(server, "token", "create", "--json", "--name", "reader", "--scope", "jobs:read")
    token_id = json.loads(made.stdout)["info"]["token_id"]
    assert token_id in cli(server, "token", "list").stdout
    assert cli(server, "token", "revoke", token_id).returncode == 0
    assert server.token not in cli(server, "token", "show").stdout


def test_status_says_how_the_engine_is(server: RunningServer) -> None:
    status = json.loads(cli(server, "status", "--json").stdout)
    assert (status["name"], status["health"], status["max_running"]) == ("jobledger", "ok", 4)


def test_a_broken_pipe_ends_the_cli_in_silence(server: RunningServer) -> None:
    line = f"{sys.executable} -m jobledger.cli ls --json --data-dir {server.data_dir} | head -c 1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
