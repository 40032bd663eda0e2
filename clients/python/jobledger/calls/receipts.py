"""Receipts, and what others need to verify them."""

from collections.abc import Sequence
from typing import Literal

from jobledger.calls.base import Calls
from jobledger.v1.job_service_pb2 import GetReceiptRequest, ReceiptFormat
from jobledger.v1.receipt_service_pb2 import (
    Checkpoint,
    ConsistencyProof,
    GetCheckpointRequest,
    GetConsistencyProofRequest,
    GetInclusionProofRequest,
    InclusionProof,
    ListSigningKeysRequest,
    SigningKey,
)
from jobledger.values import enum_number


class ReceiptCalls(Calls):
    """Verbs on receipts."""

    async def receipt(self, job_id: str, *, format: Literal["json", "dsse", "proof"] = "json") -> bytes:  # noqa: A002
        """The receipt of a job that has ended: the stored bytes.

        Args:
            format: `json` the receipt itself, `dsse` the signed envelope, `proof` that it is in the log.

        Raises:
            NotFoundError: there is no such job, or the job has not ended (E_RECEIPT_NOT_READY).
        """
        request = GetReceiptRequest(job_id=job_id, format=enum_number(ReceiptFormat, format))
        answer = await self._transport.call(self._jobs.GetReceipt, request)
        data: bytes = answer.data
        return data

    async def signing_keys(self) -> Sequence[SigningKey]:
        """The keys with which receipts are and were signed, newest first."""
        return (await self._transport.call(self._receipts.ListSigningKeys, ListSigningKeysRequest())).keys

    async def checkpoint(self) -> Checkpoint:
        """The signed state of the log of receipts."""
        return await self._transport.call(self._receipts.GetCheckpoint, GetCheckpointRequest())

    async def inclusion_proof(self, job_id: str) -> InclusionProof:
        """Proof that a job's receipt is in the log.

        Raises:
            NotFoundError: there is no such job, or it has no receipt yet.
        """
        return await self._transport.call(self._receipts.GetInclusionProof, GetInclusionProofRequest(job_id=job_id))

    async def consistency_proof(self, old_size: int, new_size: int | None = None) -> ConsistencyProof:
        """Proof that the log at `new_size` receipts, by default as it is now, begins with what it was at `old_size`.

        Raises:
            ValidationError: the log has not so many receipts, or the older state has more than the newer.
        """
        request = GetConsistencyProofRequest(old_size=old_size, new_size=new_size)
        return await self._transport.call(self._receipts.GetConsistencyProof, request)
