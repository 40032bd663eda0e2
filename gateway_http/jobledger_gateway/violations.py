"""What is wrong with a JSON value, collected while it is read, within bounds."""

from jobledger_gateway.errors import MOST_TOLD, Violation

# Characters of a path: a name of the client's own can be as long as its body.
MOST_PATH = 256


class EnoughError(Exception):
    """There are as many violations as are told: nothing more is read."""


class Violations:
    """What is wrong with a value, as far as it has been read."""

    def __init__(self) -> None:
        self.found: list[Violation] = []

    def add(self, path: str, description: str) -> None:
        """Notes a violation.

        Raises:
            EnoughError: it is the last that is told.
        """
        self.found.append(Violation(path, description))
        if len(self.found) >= MOST_TOLD:
            raise EnoughError


def below(path: str, name: str) -> str:
    """The path of a member of an object, cut where it gets too long. A name that is empty shows as such."""
    where = f"{path}.{name}" if path else name or '""'
    return where if len(where) <= MOST_PATH else f"{where[:MOST_PATH]}..."
