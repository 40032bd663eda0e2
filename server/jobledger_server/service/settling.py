"""Lets a transaction store the end of a job whose receipt is signed outside of it."""

from collections.abc import Callable

from jobledger_server.core.ports import JobChange, JobRecord, StoredReceipt

Decide = Callable[[JobRecord], JobChange | None]


class Settling:
    """Decides on the record as it is in the transaction; repeats what it decided where that was signed meanwhile.

    What was signed belongs to the record that was decided on: where that has changed since, it is decided anew.
    """

    def __init__(self, decide: Decide) -> None:
        self._decide = decide
        self._seen: JobRecord | None = None
        self._signed: JobChange | None = None
        self.receipt: StoredReceipt | None = None

    def __call__(self, current: JobRecord) -> JobChange | None:
        """The change, for `update_job`.

        Raises:
            SignatureNeededError: it is to be signed, to be handed to `signed`, and to be tried again.
        """
        if self._signed is not None and self._seen is not None and _alike(current, self._seen):
            change: JobChange | None = self._signed
        else:
            self._seen, self._signed = current, None
            change = self._decide(current)
        self.receipt = change.receipt if change else None
        return change

    def signed(self, change: JobChange) -> None:
        """What was to be signed, with its signature."""
        self._signed = change


def _alike(one: JobRecord, other: JobRecord) -> bool:
    """Whether the same would be decided on both: the time of the last activity alone changes nothing."""
    return one.job == other.job and one.cancel == other.cancel
