"""What a verification reports: each thing that was looked at, what it all amounts to, and what it does not prove."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "failed", "skipped"]

CAVEATS = (
    "A receipt proves that the holder of the key signed these bytes; it does not prove that the server told the truth.",
    "It does not prove that nobody else had the key: without isolation, a job can read what the server's user can.",
    "It does not prove when anything happened: its times are those of the server's own clock.",
)
WITHOUT_PROOF = "Without a proof that holds, this does not prove that the log of the installation has this receipt."
WITHOUT_CHECKPOINT = (
    "Without an earlier checkpoint that you kept, this does not prove that the log of the installation has lost none."
)
WITHOUT_FILES = "Not all files that it names were looked at: this does not prove that those you have are the same."

VALID, INVALID, NOT_CHECKED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `name` is for programs, `detail` for people."""

    name: str
    status: Status
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationReport:
    """What became of each check, and the receipt, where it could be read: believe it only with `exit_code` 0."""

    checks: Sequence[Check]
    receipt: dict[str, Any] | None = None
    caveats: tuple[str, ...] = CAVEATS

    @property
    def exit_code(self) -> int:
        """0 valid; 1 something does not hold; 2 nothing failed, and something could not be checked."""
        statuses = {check.status for check in self.checks}
        if "failed" in statuses:
            return INVALID
        return NOT_CHECKED if "skipped" in statuses else VALID


def holds_or_failed(name: str, holds: bool, detail: str) -> Check:
    """A check that came to an end."""
    return Check(name, "ok" if holds else "failed", detail)
