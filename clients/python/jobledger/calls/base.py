"""What all verbs share: the transport and the stubs over it."""

from typing import TYPE_CHECKING

from jobledger.calls.transport import Transport
from jobledger.v1.engine_service_pb2_grpc import EngineServiceStub
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.receipt_service_pb2_grpc import ReceiptServiceStub

if TYPE_CHECKING:
    from jobledger.v1.engine_service_pb2_grpc import EngineServiceAsyncStub
    from jobledger.v1.job_service_pb2_grpc import JobServiceAsyncStub
    from jobledger.v1.receipt_service_pb2_grpc import ReceiptServiceAsyncStub


class Calls:
    """Base of the groups of verbs.

    Attributes:
        endpoint: the server, and how it lets in.
    """

    def __init__(self, transport: Transport) -> None:
        self.endpoint = transport.endpoint
        self._transport = transport
        self._jobs: JobServiceAsyncStub = JobServiceStub(transport.channel)
        self._receipts: ReceiptServiceAsyncStub = ReceiptServiceStub(transport.channel)
        self._engine: EngineServiceAsyncStub = EngineServiceStub(transport.channel)
