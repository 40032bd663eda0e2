"""What the service needs of the world, and what each implementation must promise.

One contract suite for each port runs over every implementation (`tests/contracts`). Instants are microseconds since the
epoch (UTC); messages handed out are the caller's to read, never to change: copy first.
"""

from jobledger_server.core.ports.audit import (
    AuditFilter,
    AuditRecord,
    AuditStore,
)
from jobledger_server.core.ports.blobs import (
    BlobBatch,
    BlobDamagedError,
    Blobs,
    FileChangedError,
    StoredBlob,
)
from jobledger_server.core.ports.clock import (
    Clock,
)
from jobledger_server.core.ports.executor import (
    EndReason,
    Executor,
    ExecutorListener,
    InputClosedError,
    InputFullError,
    Launch,
    Limits,
    LogSummary,
    NewerAttemptError,
    Outcome,
    ProgressReport,
    Running,
)
from jobledger_server.core.ports.jobs import (
    CancelIntent,
    IdempotencyConflictError,
    IdempotencyKey,
    JobChange,
    JobFilter,
    JobOrder,
    JobPage,
    JobRecord,
    JobStore,
    KeyedJobDeletedError,
    Origin,
    SerializedJobs,
    StoredReceipt,
)
from jobledger_server.core.ports.retention import (
    JOB_DIRS,
    LOGS,
    EndedJob,
    Kept,
    RetentionStore,
)
from jobledger_server.core.ports.store import (
    EventBounds,
    EventStore,
    InvariantError,
    ReceiptStore,
    Store,
    StoreUnavailableError,
    TokenChange,
    TokenRecord,
    TokenStore,
)

__all__ = [
    "JOB_DIRS",
    "LOGS",
    "AuditFilter",
    "AuditRecord",
    "AuditStore",
    "BlobBatch",
    "BlobDamagedError",
    "Blobs",
    "CancelIntent",
    "Clock",
    "EndReason",
    "EndedJob",
    "EventBounds",
    "EventStore",
    "Executor",
    "ExecutorListener",
    "FileChangedError",
    "IdempotencyConflictError",
    "IdempotencyKey",
    "InputClosedError",
    "InputFullError",
    "InvariantError",
    "JobChange",
    "JobFilter",
    "JobOrder",
    "JobPage",
    "JobRecord",
    "JobStore",
    "Kept",
    "KeyedJobDeletedError",
    "Launch",
    "Limits",
    "LogSummary",
    "NewerAttemptError",
    "Origin",
    "Outcome",
    "ProgressReport",
    "ReceiptStore",
    "RetentionStore",
    "Running",
    "SerializedJobs",
    "Store",
    "StoreUnavailableError",
    "StoredBlob",
    "StoredReceipt",
    "TokenChange",
    "TokenRecord",
    "TokenStore",
]
