"""What should be stored by now and is not: how much of it there is, and why."""


class Overdue:
    """Counts the ends of jobs that wait for another try."""

    def __init__(self) -> None:
        self._reasons: dict[object, str] = {}

    def __len__(self) -> int:
        """How many could not be stored at the last try."""
        return len(self._reasons)

    def late(self, what: object, reason: str) -> None:
        """It could not be stored just now."""
        self._reasons[what] = reason

    def over(self, what: object) -> None:
        """It is stored, or nobody waits for it any more."""
        self._reasons.pop(what, None)

    @property
    def trouble(self) -> str:
        """What is wrong; empty where nothing is. It is told to those, too, who are not to learn how much there is."""
        if not self._reasons:
            return ""
        return f"ends of jobs can't be stored just now: {next(reversed(self._reasons.values()))}"
