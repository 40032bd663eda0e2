"""Paths that a caller names, held against the roots that the operator allows."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from jobledger_server.core.errors import Reason, ServiceError, invalid


def allowed_path(text: str, roots: Sequence[Path], field: str) -> Path:
    """The real path, if it lies within one of the roots.

    Raises:
        ServiceError: VALIDATION for one that is not absolute; PATH_TRAVERSAL for one that leaves its root by `..` or a
            link; PATH_NOT_ALLOWED for one outside all roots.
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
    # Not Path.resolve, which raises where links lead in a circle.
    real = Path(os.path.realpath(text))
    if not _within(real, real_roots):
        raise ServiceError(Reason.ERROR_REASON_PATH_TRAVERSAL, f"{field}: {text} leaves the allowed roots by a link")
    return real


def _within(path: Path, roots: Sequence[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)
