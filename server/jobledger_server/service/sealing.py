"""Gives a change that ends a job what belongs to it: its artifacts, their events, and the signed receipt."""

from collections.abc import Sequence
from dataclasses import replace

from jobledger.v1.job_pb2 import Artifact

from jobledger_server.core import artifacts
from jobledger_server.core.ports import JobChange, LogSummary
from jobledger_server.core.receipts import Environment, UnsignedReceipt, build_receipt, seal, unsigned
from jobledger_server.core.retention import kept_of
from jobledger_server.core.states import is_terminal
from jobledger_server.service.collecting import Collected
from jobledger_server.service.signing import KeyRing

NOTHING = Collected((), ())


class SignatureNeededError(Exception):
    """A change is complete but for the signature of its receipt, which takes longer than a transaction may."""

    def __init__(self, change: JobChange, receipt: UnsignedReceipt) -> None:
        super().__init__(f"the receipt of {change.record.job.job_id} is not signed yet")
        self.change = change
        self.receipt = receipt


class Sealer:
    """Completes terminal changes. Its work is pure and quick, so it can be done inside the transaction."""

    def __init__(self, *, keys: KeyRing, environment: Environment) -> None:
        self._keys = keys
        self._environment = environment

    @property
    def signs_at_once(self) -> bool:
        """Whether receipts are signed inside the transaction; else `sign` must be awaited outside of it."""
        return self._keys.signs_at_once

    def seal(
        self,
        change: JobChange | None,
        *,
        log: LogSummary | None = None,
        isolation: str | None = None,
        collected: Collected = NOTHING,
        pending: Sequence[Artifact] = (),
        first_artifact_id: int = 0,
    ) -> JobChange | None:
        """The change with artifacts and receipt, where it ends its job; else as it is.

        Args:
            isolation: what the attempt that ends the job was started under; None where no attempt does.
            pending: the artifacts that the job declared.
            first_artifact_id: ids from here on are reserved for the outputs.

        Raises:
            SignatureNeededError: the key is elsewhere, so that `sign` must be awaited outside of the transaction.
        """
        if change is None or not is_terminal(change.record.job.state):
            return change
        job = change.record.job
        left = artifacts.settled(job, collected.outputs, pending=pending, first_id=first_artifact_id)
        log = log or LogSummary()
        origin = change.record.origin
        if origin and origin.attempt != job.attempt:
            # Of an attempt that was made ready and never started: the receipt is of another one, or of none.
            origin = None
        receipt = build_receipt(
            record=change.record,
            log=log,
            environment=replace(self._environment, isolation=isolation),
            inputs=origin.inputs if origin else {},
            outputs=collected.outputs,
            refused=[(refusal.path, refusal.reason) for refusal in collected.refused],
            source_pins=origin.source_pins if origin else {},
        )
        *before, end = change.events
        events = [*before, *artifacts.events(job, left, change.record.last_activity_at), end]
        kept = kept_of(job.state, log)
        complete = replace(change, artifacts=left, artifacts_anew=True, events=events, kept=kept)
        if not self._keys.signs_at_once:
            raise SignatureNeededError(complete, unsigned(receipt))
        return replace(complete, receipt=seal(receipt, self._keys))

    async def sign(self, needed: SignatureNeededError) -> JobChange:
        """The change with its signed receipt.

        Raises:
            SigningError: there is no signature just now.
        """
        signature = await self._keys.sign_elsewhere(needed.receipt.to_sign)
        return replace(needed.change, receipt=needed.receipt.signed(*signature))
