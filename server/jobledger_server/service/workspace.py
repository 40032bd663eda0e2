"""The directories of a job, and what its process finds in them.

<data>/jobs/<job_id>/     input/ output/ temp/ config.json, a checkpoint.json perhaps, and at the end receipt.json
<data>/logs/<job_id>/     its log, out of the job's reach by name
"""

import errno
import hashlib
import json
import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO

from jobledger.v1.job_pb2 import INPUT_TYPE_FILE, Job, JobLimits

from jobledger_server.core.errors import ServiceError
from jobledger_server.core.paths import allowed_path
from jobledger_server.core.ports import Launch, Limits, Origin
from jobledger_server.core.real_paths import open_real
from jobledger_server.core.secret_references import NO_SECRETS, AllowedSecrets, is_reference
from jobledger_server.core.specs import grace_seconds
from jobledger_server.core.structs import plain
from jobledger_server.core.times import seconds
from jobledger_server.service.early_input import EarlyInput, read_early_input
from jobledger_server.service.secret_values import secret_values
from jobledger_server.service.source_pins import git_pins
from jobledger_server.service.tool_pins import tool_pins
from jobledger_server.service.trees import remove_tree

log = logging.getLogger(__name__)
# What a job inherits of the server's environment: enough to find programs and to write text, no more.
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
STDIN_OPEN = "open"
CONTROL, CANCELLED, CHECKPOINT = "control", "cancelled", "checkpoint.json"
DEFAULT_LOG_BYTES = 256 * 1024 * 1024
COPY_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspaces:
    """Where jobs live on this machine, and what of it they may have.

    Attributes:
        removing: directories that a sweep has removed, or is about to, and has not noted yet.
    """

    data_dir: Path
    roots: tuple[Path, ...] = ()
    secrets: AllowedSecrets = NO_SECRETS
    removing: set[Path] = field(default_factory=set, compare=False)

    def job_dir(self, job_id: str) -> Path:
        return self.data_dir / "jobs" / job_id

    def log_dir(self, job_id: str) -> Path:
        return self.data_dir / "logs" / job_id

    def output_dir(self, job_id: str) -> Path:
        return self.job_dir(job_id) / "output"

    def prepare(self, job: Job, attempt: int, environment: Mapping[str, str]) -> Launch:
        """Makes the job's directories and says how to start the attempt. Making them again changes nothing.

        Raises:
            OSError: a path has left the roots, or the directories can't be made; the message names the path.
            SecretError: a secret can't be had.
        """
        secret_env = secret_values(job.spec.env, environment, self.secrets)
        job_dir = self.job_dir(job.job_id)
        _make_directories(job_dir)
        self.log_dir(job.job_id).mkdir(mode=0o700, parents=True, exist_ok=True)
        config = job_dir / "config.json"
        _write_anew(config, f"{json.dumps(plain(job.spec.config), sort_keys=True)}\n".encode(), 0o600)
        env = job_environment(job, attempt, job_dir, config, environment)
        return self._launch(job, attempt, env, secret_env)

    def take_origin(self, job: Job, attempt: int, launch: Launch) -> Origin | None:
        """Copies the input files to where the attempt finds them, and says what it is made from; None: from nothing.

        Called after `prepare`, and before anything of the attempt runs: from then on the job could change it.

        Raises:
            OSError: an input can't be read, or a path has left the roots; the message names the path.
        """
        inputs = self._copy_inputs(job, launch.job_dir)
        pins: dict[str, str] = {}
        # The job's own directory is no source.
        if job.spec.HasField("working_dir"):
            pins |= git_pins(launch.working_dir, self.roots)
        pins |= tool_pins(job.spec.tools, launch.env.get("PATH", ""), hidden=self.data_dir)
        return Origin(attempt=attempt, inputs=inputs, source_pins=pins) if inputs or pins else None

    def _launch(self, job: Job, attempt: int, env: Mapping[str, str], secret_env: Mapping[str, str]) -> Launch:
        spec, job_dir = job.spec, self.job_dir(job.job_id)
        early = self.early_input(job) if spec.stdin == STDIN_OPEN else None
        return Launch(
            job_id=job.job_id,
            attempt=attempt,
            argv=list(spec.command),
            env=env,
            secret_env=secret_env,
            working_dir=self._working_dir(job),
            job_dir=job_dir,
            log_dir=self.log_dir(job.job_id),
            stdin=spec.stdin.encode() if early is None else early.data,
            stdin_open=early is not None and not early.closed,
            timeout_seconds=seconds(spec.timeout) if spec.HasField("timeout") else None,
            grace_seconds=grace_seconds(spec),
            log_bytes=spec.limits.log_bytes if spec.limits.HasField("log_bytes") else DEFAULT_LOG_BYTES,
            limits=_limits(spec.limits),
        )

    def early_input(self, job: Job) -> EarlyInput:
        """What was sent to the job while it was queued."""
        return read_early_input(self.log_dir(job.job_id))

    def count_early_input(self, job: Job) -> int:
        """How many follow-ups that is; 0 where it can't be read: that is told when the job is to be started."""
        try:
            return len(self.early_input(job).texts)
        except (OSError, ValueError, LookupError, TypeError) as error:
            log.warning("what was sent to %s before its start can't be read: %s", job.job_id, error)
            return 0

    def _working_dir(self, job: Job) -> Path:
        if not job.spec.HasField("working_dir"):
            return _without_links(self.data_dir / "jobs") / job.job_id
        return self._still_allowed(job.spec.working_dir, "working_dir")

    def _copy_inputs(self, job: Job, job_dir: Path) -> dict[str, str]:
        """Their SHA-256, as the job gets them, by their paths."""
        files = [item.file_path for item in job.spec.inputs if item.type == INPUT_TYPE_FILE]
        return {
            source: _copy_file(self._still_allowed(source, "inputs"), job_dir / "input" / Path(source).name)
            for source in files
        }

    def _still_allowed(self, path: str, field: str) -> Path:
        """The path without links, if it lies within the roots now as it did when the job was accepted."""
        try:
            return allowed_path(path, self.roots, field, hidden=self.data_dir)
        except ServiceError as error:
            raise PermissionError(errno.EACCES, error.message) from None

    def remove(self, job_id: str) -> None:
        """Deletes what the job left on disk, but for its stored artifacts."""
        remove_tree(self.job_dir(job_id))
        remove_tree(self.log_dir(job_id))

    def write_receipt(self, job_id: str, receipt: bytes) -> None:
        """A read-only copy of the receipt for whoever looks into the job's directory. It is never read back."""
        target = self.job_dir(job_id) / "receipt.json"
        temporary = target.with_suffix(".new")
        _write_anew(temporary, receipt, 0o400)
        if target.is_dir():
            _clear(target)
        temporary.rename(target)


@cache
def _without_links(directory: Path) -> Path:
    return directory.resolve()


def _limits(asked: JobLimits) -> Limits:
    return Limits(
        cpu_seconds=seconds(asked.cpu_time) if asked.HasField("cpu_time") else None,
        memory_bytes=asked.memory_bytes if asked.HasField("memory_bytes") else None,
        open_files=asked.open_files if asked.HasField("open_files") else None,
        file_size_bytes=asked.file_size_bytes if asked.HasField("file_size_bytes") else None,
        disk_bytes=asked.disk_bytes if asked.HasField("disk_bytes") else None,
    )


def _make_directories(job_dir: Path) -> None:
    parts = [job_dir / name for name in ("input", "output", "temp")]
    try:
        job_dir.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        for path in (job_dir, *parts):
            _make_directory(path)
        for name in (CONTROL, CANCELLED):
            _clear(job_dir / name)
    else:
        # Nobody else can have been there.
        for path in parts:
            path.mkdir(mode=0o700)


def _make_directory(path: Path) -> None:
    """Makes it where it is not; what an earlier attempt put in its place goes."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        path.unlink()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _clear(path: Path) -> None:
    """Removes whatever is there."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def _write_anew(path: Path, data: bytes, mode: int) -> None:
    with _anew(path, mode) as file:
        file.write(data)


def _anew(path: Path, mode: int) -> BinaryIO:
    """Opens a file that was not there before for writing: never through a link that a job has made."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, mode)
    except FileExistsError:
        _clear(path)
        descriptor = os.open(path, flags, mode)
    return os.fdopen(descriptor, "wb")


def _copy_file(source: Path, copy: Path) -> str:
    """Copies what is at a path without links. Returns its SHA-256. A link that has come there since is not followed."""
    descriptor = _open_file(source)
    try:
        with _anew(copy, 0o600) as file:
            return _copy(descriptor, file)
    except OSError:
        # Half a copy must not hold the room that a full disk lacks: the start is tried again later.
        copy.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _open_file(path: Path) -> int:
    descriptor = open_real(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return descriptor


def _copy(descriptor: int, file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := os.read(descriptor, COPY_CHUNK):
        digest.update(chunk)
        file.write(chunk)
    return digest.hexdigest()


def job_environment(
    job: Job, attempt: int, job_dir: Path, config: Path, environment: Mapping[str, str]
) -> dict[str, str]:
    """The environment of a job's process but for secrets: a few inherited names, the caller's, the engine's own."""
    inherited = {name: environment[name] for name in INHERITED if name in environment}
    return {
        **inherited,
        **{name: value for name, value in job.spec.env.items() if not is_reference(value)},
        "JOBLEDGER_JOB_ID": job.job_id,
        "JOBLEDGER_RUN_ID": job.run_id,
        "JOBLEDGER_ATTEMPT": str(attempt),
        "JOBLEDGER_JOB_DIR": str(job_dir),
        "JOBLEDGER_OUTPUT_DIR": str(job_dir / "output"),
        "JOBLEDGER_JOB_CONFIG": str(config),
        "JOBLEDGER_CONTROL": str(job_dir / CONTROL),
        "JOBLEDGER_CHECKPOINT": str(job_dir / CHECKPOINT),
    }
