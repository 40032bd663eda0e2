"""A command that has the key of the receipts: its answers are believed by their signature alone."""

import asyncio
import os
import signal
import stat
import sys
import tracemalloc
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from jobledger_server.service.external_signer import ExternalSigner, SigningError
from jobledger_server.service.key_files import KeyRingError
from jobledger_server.service.signing import KeyRing, open_ring
from jobledger_server.stores.sqlite import SqliteStore
from receipt_samples import SIGNER, STRANGER, SampleSigner
from support.clock import ManualClock
from support.eventually import eventually

# Signs what comes with the key in its first argument.
PROGRAM = """\
import sys
from pathlib import Path
from cryptography.hazmat.primitives.serialization import load_pem_private_key
data = sys.stdin.buffer.read()
key = load_pem_private_key(Path(sys.argv[1]).read_bytes(), password=None)
sys.stdout.buffer.write(key.sign(data))
"""


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """The public key, as `signer_key` names it."""
    path = tmp_path / "signer.pem"
    path.write_bytes(SIGNER.public_key_pem)
    return path


def private_key(directory: Path, signer: SampleSigner = SIGNER) -> Path:
    path = directory / f"{signer.key_id[:8]}.key"
    kinds = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(signer.key.private_bytes(*kinds))
    return path


def program(directory: Path, text: str = PROGRAM) -> str:
    path = directory / "sign.py"
    path.write_text(text)
    return f"'{sys.executable}' '{path}'"


def shell(directory: Path, script: str) -> str:
    path = directory / "sign.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(stat.S_IRWXU)
    return str(path)


def signer_of(command: str, key_file: Path) -> ExternalSigner:
    signer = ExternalSigner.of(command, key_file)
    assert signer is not None
    return signer


async def test_the_command_gets_the_bytes_and_answers_the_signature(tmp_path: Path, key_file: Path) -> None:
    signer = signer_of(f"{program(tmp_path)} '{private_key(tmp_path)}'", key_file)
    for data in (b"", b"DSSEv1 \x00\xff\n", b"x" * 1_000_000):
        assert await signer.sign(data) == SIGNER.key.sign(data)
    assert signer.trouble == ""


async def test_a_signature_of_another_key_is_not_believed(tmp_path: Path, key_file: Path) -> None:
    signer = signer_of(f"{program(tmp_path)} '{private_key(tmp_path, STRANGER)}'", key_file)
    with pytest.raises(SigningError, match="no signature of its key"):
        await signer.sign(b"data")
    assert "signer_key" in signer.trouble


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("cat > /dev/null; exit 7", "exit code 7, without a word"),
        ("echo first >&2; echo the HSM is locked >&2; echo >&2; exit 1", "exit code 1, the HSM is locked"),
        ("cat > /dev/null", "it answered 0 bytes, not 64"),
        ("head -c 65 /dev/zero", "it answered more than 64 bytes"),
        ("kill -9 $$", "exit code -9"),
        ("head -c 64 /dev/zero", "no signature of its key"),
    ],
)
async def test_a_command_that_fails_gives_no_signature_and_its_reason(
    tmp_path: Path, key_file: Path, script: str, reason: str
) -> None:
    with pytest.raises(SigningError, match=reason):
        await signer_of(shell(tmp_path, script), key_file).sign(b"data" * 100_000)


async def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path, key_file: Path) -> None:
    told = tmp_path / "pids"
    script = shell(tmp_path, f"sleep 600 & echo $! > {told}; echo $$ >> {told}; wait")
    public = signer_of(script, key_file).public_key
    signer = ExternalSigner((script,), public, timeout=0.5)
    with pytest.raises(SigningError, match=r"no answer within 0\.5 s"):
        await signer.sign(b"data")
    pids = [int(pid) for pid in told.read_text().split()]
    assert len(pids) == 2
    for pid in pids:
        await eventually(partial(asyncio.to_thread, gone, pid))


@pytest.mark.parametrize("stream", ["", " >&2"])
async def test_a_command_that_floods_its_output_costs_no_memory(tmp_path: Path, key_file: Path, stream: str) -> None:
    public = signer_of(shell(tmp_path, f"exec cat /dev/zero{stream}"), key_file).public_key
    signer = ExternalSigner((str(tmp_path / "sign.sh"),), public, timeout=0.5)
    tracemalloc.start()
    try:
        with pytest.raises(SigningError, match="no answer within" if stream else "more than 64 bytes"):
            await signer.sign(b"data")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


async def test_a_signature_counts_though_what_the_command_left_behind_holds_its_output(
    tmp_path: Path, key_file: Path
) -> None:
    sign, left = f"{program(tmp_path)} '{private_key(tmp_path)}'", tmp_path / "left"
    script = shell(tmp_path, f"sleep 600 & echo $! > {left}; {sign}")
    try:
        signature = await ExternalSigner((script,), signer_of("sh", key_file).public_key).sign(b"data")
    finally:
        os.kill(int(left.read_text()), signal.SIGKILL)
    assert signature == SIGNER.key.sign(b"data")


def gone(pid: int) -> bool:
    """Whether there is no such process, or only what its parent has not waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize(
    ("command", "key", "reason"),
    [
        ("sign", None, "go together"),
        ("", "signer.pem", "go together"),
        ("no-such-program-anywhere", "signer.pem", "names no program"),
        ("sh 'unbalanced", "signer.pem", "no command line"),
        ("  ", "signer.pem", "names no program"),
        ("sh", "missing.pem", "can't be read"),
        ("sh", "sign.txt", "can't be read"),
    ],
)
def test_settings_that_name_no_signer_are_refused_at_the_start(
    tmp_path: Path, key_file: Path, command: str, key: str | None, reason: str
) -> None:
    assert key_file.exists()
    (tmp_path / "sign.txt").write_text("no key")
    with pytest.raises(KeyRingError, match=reason):
        ExternalSigner.of(command, tmp_path / key if key else None)
    assert ExternalSigner.of("", None) is None


def test_a_signer_elsewhere_takes_the_place_of_the_key_that_was_a_file(tmp_path: Path, key_file: Path) -> None:
    clock, directory = ManualClock(), tmp_path / "keys"
    before = KeyRing.open(directory, clock).keys()
    ring = KeyRing.open(directory, clock, external=signer_of("sh", key_file))
    now, then = ring.keys()
    assert [now.key_id, then.key_id] == [SIGNER.key_id, before[0].key_id]
    assert not now.HasField("valid_until")
    assert then.HasField("valid_until")
    assert not ring.signs_at_once


def test_an_installation_that_never_had_a_key_of_its_own_makes_none(tmp_path: Path, key_file: Path) -> None:
    KeyRing.open(tmp_path / "keys", ManualClock(), external=signer_of("sh", key_file))
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["keys.json", "log.key", "log.vkey"]


async def test_a_new_signer_signs_once_before_its_key_is_told(
    tmp_path: Path, key_file: Path, store: SqliteStore
) -> None:
    """Else a wrong setting would show at the end of the first job; and a key would be published that signs nothing."""
    keys = tmp_path / "keys"

    async def opened(command: str) -> KeyRing:
        return await open_ring(keys, clock=ManualClock(), store=store, external=signer_of(command, key_file))

    broken = shell(tmp_path, "echo the HSM is locked >&2; exit 3")
    with pytest.raises(KeyRingError, match=rf"{broken} did not sign: exit code 3, the HSM is locked.*mend"):
        await opened(broken)
    assert not keys.exists()
    sign = f"{program(tmp_path)} '{private_key(tmp_path)}'"
    ring = await opened(sign)
    assert ring.trouble == ""
    # One that is known may be away: what there is can be read meanwhile.
    ring = await opened(broken)
    assert "the HSM is locked" in ring.trouble
    with pytest.raises(KeyRingError, match="no signature of its key"):
        await opened(f"{program(tmp_path)} '{private_key(tmp_path, STRANGER)}'")
