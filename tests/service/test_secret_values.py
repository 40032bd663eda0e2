"""What references stand for, and what keeps a job from its secrets."""

import errno
import os
from pathlib import Path

import pytest
from jobledger.v1.job_pb2 import Job, JobSpec
from jobledger_server.core.secret_references import NO_SECRETS, AllowedSecrets
from jobledger_server.service.secret_values import SecretError, secret_values
from jobledger_server.service.workspace import Workspaces


@pytest.fixture
def allowed(tmp_path: Path) -> AllowedSecrets:
    return AllowedSecrets.of(["API_TOKEN", str(tmp_path)])


def complaint(reference: str, allowed: AllowedSecrets, **environment: str) -> str:
    with pytest.raises(SecretError) as caught:
        secret_values({"TOKEN": reference}, environment, allowed)
    return str(caught.value)


def from_file(path: Path, content: bytes, allowed: AllowedSecrets) -> bytes:
    path.write_bytes(content)
    return os.fsencode(secret_values({"KEY": f"secret:file:{path}"}, {}, allowed)["KEY"])


def test_each_reference_gets_its_value_and_nothing_else_does(allowed: AllowedSecrets) -> None:
    env = {"A": "secret:env:API_TOKEN", "B": "plain", "C": "secret:env:API_TOKEN"}
    assert secret_values(env, {"API_TOKEN": "hunter2-and-more"}, allowed) == {
        "A": "hunter2-and-more",
        "C": "hunter2-and-more",
    }


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"the key1", b"the key1"),
        (b"the key1\n", b"the key1"),
        (b"the key1\r\n", b"the key1"),
        (b"one of my keys\n\n", b"one of my keys\n"),
        (b"\xff\xfe\xfd\xfc" * 2, b"\xff\xfe\xfd\xfc" * 2),
    ],
)
def test_a_file_is_taken_without_the_newline_at_its_end(
    tmp_path: Path, allowed: AllowedSecrets, content: bytes, value: bytes
) -> None:
    assert from_file(tmp_path / "key", content, allowed) == value


def test_what_is_missing_is_named_by_its_reference(tmp_path: Path, allowed: AllowedSecrets) -> None:
    assert complaint("secret:env:API_TOKEN", allowed) == (
        "spec.env[TOKEN]: secret:env:API_TOKEN is not set in the server's environment"
    )
    for path in (tmp_path / "missing", tmp_path):
        assert complaint(f"secret:file:{path}", allowed) == (
            f"spec.env[TOKEN]: secret:file:{path} is not there, or no file"
        )


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "0 bytes"),
        ("seven-7", "7 bytes"),
        (" seven-7 \n", "7 bytes"),
        ("a\0bcdefg", "NUL"),
        ("x" * 131_072, "more than"),
    ],
)
def test_what_can_not_be_hidden_or_passed_on_is_refused_without_telling_it(
    allowed: AllowedSecrets, value: str, why: str
) -> None:
    told = complaint("secret:env:API_TOKEN", allowed, API_TOKEN=value)
    assert "spec.env[TOKEN]: secret:env:API_TOKEN " in told
    assert why in told
    assert not value or value not in told


def test_an_endless_file_is_not_read_to_its_end(tmp_path: Path, allowed: AllowedSecrets) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    assert "bytes" in complaint(f"secret:file:{tmp_path}/large", allowed)


def test_secrets_have_no_room_together_that_a_process_has_not(allowed: AllowedSecrets) -> None:
    env = {f"TOKEN_{number}": "secret:env:API_TOKEN" for number in range(20)}
    with pytest.raises(SecretError, match="together"):
        secret_values(env, {"API_TOKEN": "x" * 100_000}, allowed)


def test_what_is_not_allowed_any_more_is_not_had() -> None:
    """The settings may have changed since the job was accepted."""
    assert "jobs may not refer to the variable API_TOKEN" in complaint(
        "secret:env:API_TOKEN", NO_SECRETS, API_TOKEN="hunter2-and-more"
    )


def test_a_shortage_that_passes_is_no_fault_of_the_secret(
    tmp_path: Path, allowed: AllowedSecrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_files(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    (tmp_path / "key").touch()
    monkeypatch.setattr(Path, "open", no_files)
    with pytest.raises(OSError, match="Too many open files"):
        secret_values({"TOKEN": f"secret:file:{tmp_path}/key"}, {}, allowed)


def test_an_attempt_gets_secrets_beside_its_environment(tmp_path: Path, allowed: AllowedSecrets) -> None:
    workspaces = Workspaces(data_dir=tmp_path / "data", secrets=allowed)
    spec = JobSpec(command=["true"], env={"TOKEN": "secret:env:API_TOKEN", "PLAIN": "x"})
    launch = workspaces.prepare(Job(job_id="job_1", spec=spec), 1, {"API_TOKEN": "hunter2-and-more"})
    assert launch.secret_env == {"TOKEN": "hunter2-and-more"}
    assert launch.env["PLAIN"] == "x"
    assert "TOKEN" not in launch.env
    assert "hunter2-and-more" not in repr(launch)
