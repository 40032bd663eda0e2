"""Paths that a caller names, held against the roots that the operator allows."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from jobledger_server.core.errors import Reason, ServiceError, invalid


def allowed_path(text: str, roots: Sequence[Path], field: str, *, hidden: Path | None = None) -> Path:
    """The real path, if it lies within one of the roots. Open it by `open_real`: links may change at any time.

    Args:
        hidden: a directory that is out of bounds wherever it lies: the server's own.

    Raises:
        ServiceError: VALIDATION for one that is not absolute; PATH_TRAVERSAL for one that leaves its root by `..` or a
            link; PATH_NOT_ALLOWED for one outside all roots, or within `hidden`.
    """
    if "\0" in text or not text.startswith("/"):
        raise invalid(field, "must be an absolute path")
    if ".." in PurePosixPath(text).parts:
        raise ServiceError(Reason.ERROR_REASON_PATH_TRAVERSAL, f"{field}: the path contains '..'")
    real_roots = [root.resolve() for root in roots]
    if not _within(Path(text), [*roots, *real_roots]):
        allowed = ", ".join(str(root) for root in roots) or "none"
        raise ServiceError(
            Reason.ERROR_REASON_PATH_NOT_ALLOWED, f"{field}: {text} lies outside the allowed roots ({allowed})"
        )
    real = _real(text, field)
    if hidden is not None and _leads_into(real, hidden):
        raise ServiceError(
            Reason.ERROR_REASON_PATH_NOT_ALLOWED,
            f"{field}: {text} lies in the server's data directory, which is not for jobs: name a place outside of it",
        )
    if not _within(real, real_roots):
        raise ServiceError(Reason.ERROR_REASON_PATH_TRAVERSAL, f"{field}: {text} leaves the allowed roots by a link")
    return real


def _real(text: str, field: str) -> Path:
    try:
        # Not Path.resolve, which raises where links lead in a circle.
        return Path(os.path.realpath(text))
    except OSError as error:
        raise ServiceError(
            Reason.ERROR_REASON_PATH_TRAVERSAL,
            f"{field}: {text} can't be followed ({error.strerror}): name a path that nothing changes meanwhile",
        ) from None


def _within(path: Path, roots: Sequence[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def _leads_into(real: Path, directory: Path) -> bool:
    """Whether a path leads into a directory: by its name, or by another one (of a mount, in other letters)."""
    if real.is_relative_to(directory.resolve()):
        return True
    for place in (real, *real.parents):
        with contextlib.suppress(OSError):
            if place.samefile(directory):
                return True
    return False
