"""Opening below a directory: by the kernel or step by step, the outcome is the same."""

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobledger_server.core import beneath
from jobledger_server.core.beneath import Opening, by_the_kernel, open_beneath, step_by_step

READ = os.O_RDONLY | os.O_NONBLOCK


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    top = tmp_path / "top"
    (top / "d" / "e").mkdir(parents=True)
    (top / "f").write_text("f")
    (top / "d" / "e" / "f").write_text("deep")
    os.mkfifo(top / "pipe")
    for name, target in {
        "link": "f", "out": "../outside", "abs": str(tmp_path / "outside"), "loop": "loop", "proc": "/proc/self/fd/0",
        "gone": "nowhere", "d/up": "..", "d/in": "e",
    }.items():  # fmt: skip
        (top / name).symlink_to(target)
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def outcome(opening: Opening, top: int, path: str) -> bytes | int:
    """What the file holds, or why it can't be opened."""
    try:
        descriptor = opening(top, path, READ)
    except OSError as error:
        return error.errno or 0
    try:
        return os.read(descriptor, 100)
    except OSError as error:
        return error.errno or 0
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("opening", [by_the_kernel, step_by_step])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("f", b"f"),
        ("d/e/f", b"deep"),
        ("./d//e/./f", b"deep"),
        ("d", errno.EISDIR),
        ("pipe", b""),
        ("link", errno.ELOOP),
        ("out", errno.ELOOP),
        ("out/secret", errno.ELOOP),
        ("abs/secret", errno.ELOOP),
        ("loop", errno.ELOOP),
        ("proc", errno.ELOOP),
        ("gone", errno.ELOOP),
        ("d/in/f", errno.ELOOP),
        ("d/up/f", errno.ELOOP),
        ("none", errno.ENOENT),
        ("none/f", errno.ENOENT),
        ("f/f", errno.ENOTDIR),
        ("x" * 256, errno.ENAMETOOLONG),
    ],
)
def test_only_what_is_there_by_itself_is_opened(opening: Opening, top: int, path: str, expected: bytes | int) -> None:
    assert outcome(opening, top, path) == expected


@pytest.mark.parametrize("path", ["..", "../outside/secret", "d/../f", "/etc/passwd", "d/e/../../../outside/secret"])
@pytest.mark.parametrize("kernel", [True, False])
def test_no_path_leads_out(top: int, path: str, *, kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel:
        monkeypatch.setattr(beneath, "_syscall", lambda: None)
    assert outcome(open_beneath, top, path) == errno.EXDEV


def test_the_kernel_itself_lets_none_out(top: int) -> None:
    if beneath._syscall() is None:
        pytest.skip("there is no openat2 on this system")
    assert outcome(by_the_kernel, top, "../outside/secret") == errno.EXDEV
    assert outcome(by_the_kernel, top, "/etc/passwd") == errno.EXDEV


def test_a_kernel_without_openat2_is_not_asked_in_vain(top: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> int:
        ctypes.set_errno(errno.ENOSYS)
        return -1

    monkeypatch.setattr(beneath, "_syscall", lambda: unknown)
    assert outcome(open_beneath, top, "d/e/f") == b"deep"
    assert outcome(open_beneath, top, "out/secret") == errno.ELOOP


def test_a_path_longer_than_the_kernel_takes_at_once_is_opened(tmp_path: Path) -> None:
    names, inner = ["n" * 200] * 25, os.open(tmp_path, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=inner)
        outer, inner = inner, os.open(name, os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=inner))
    os.close(inner)
    top = os.open(tmp_path, os.O_RDONLY)
    assert outcome(open_beneath, top, "/".join([*names, "f"])) == b""
    os.close(top)


PARTS = st.sampled_from(["d", "e", "f", "link", "out", "secret", "in", "up", "none", "pipe", "."])
PATHS = st.lists(PARTS, min_size=1, max_size=5).map("/".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PATHS | PATHS.map("{}/".format))
def test_both_ways_agree_on_every_path(top: int, path: str) -> None:
    assert outcome(by_the_kernel, top, path) == outcome(step_by_step, top, path)
