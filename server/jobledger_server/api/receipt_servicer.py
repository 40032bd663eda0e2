"""ReceiptService: each method reads the request, calls a use case, and answers."""

from jobledger.v1 import receipt_service_pb2 as pb
from jobledger.v1.receipt_service_pb2_grpc import ReceiptServiceServicer

from jobledger_server.api.interceptors.access import current_principal
from jobledger_server.api.types import Context
from jobledger_server.service.receipts import Receipts


class ReceiptServicer(ReceiptServiceServicer):
    """Keys and proofs over gRPC."""

    def __init__(self, receipts: Receipts) -> None:
        self._receipts = receipts

    async def ListSigningKeys(self, request: pb.ListSigningKeysRequest, context: Context) -> pb.ListSigningKeysResponse:
        return self._receipts.signing_keys()

    async def GetCheckpoint(self, request: pb.GetCheckpointRequest, context: Context) -> pb.Checkpoint:
        return await self._receipts.checkpoint()

    async def GetInclusionProof(self, request: pb.GetInclusionProofRequest, context: Context) -> pb.InclusionProof:
        return await self._receipts.inclusion(request.job_id, current_principal())

    async def GetConsistencyProof(
        self, request: pb.GetConsistencyProofRequest, context: Context
    ) -> pb.ConsistencyProof:
        new_size = request.new_size if request.HasField("new_size") else None
        return await self._receipts.consistency(request.old_size, new_size)
