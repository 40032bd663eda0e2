"""Receipts as they were stored, and what proves them."""

import asyncio

from jobledger.tlog import InclusionProof as InclusionPath
from jobledger.v1.job_service_pb2 import RECEIPT_FORMAT_DSSE, RECEIPT_FORMAT_PROOF, ReceiptFormat
from jobledger.v1.receipt_service_pb2 import Checkpoint, ConsistencyProof, InclusionProof, SigningKey

from jobledger_server.core.errors import Reason, ServiceError, invalid
from jobledger_server.core.merkle import Tree
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import Store, StoredReceipt
from jobledger_server.core.states import is_terminal, short_name
from jobledger_server.service.lookup import find_job
from jobledger_server.service.signing import KeyRing


class Receipts:
    """GetReceipt, and the keys, checkpoints and proofs of ReceiptService."""

    def __init__(self, *, store: Store, keys: KeyRing) -> None:
        self._store = store
        self._keys = keys
        self._tree = Tree()
        self._growing = asyncio.Lock()

    async def get(self, job_id: str, principal: Principal, form: ReceiptFormat.ValueType) -> bytes:
        """The stored bytes: receipt, or envelope, or the proof that the receipt is in the log."""
        stored = await self._find(job_id, principal)
        if form == RECEIPT_FORMAT_DSSE:
            return stored.envelope
        if form == RECEIPT_FORMAT_PROOF:
            return await self._proof(stored)
        return stored.receipt

    def signing_keys(self) -> list[SigningKey]:
        return list(self._keys.keys())

    async def checkpoint(self) -> Checkpoint:
        """The signed state of the log as it is now."""
        tree = await self._grown()
        root = tree.root()
        return Checkpoint(tree_size=len(tree), root_hash=root.hex(), note=self._keys.checkpoint(len(tree), root))

    async def inclusion(self, job_id: str, principal: Principal) -> InclusionProof:
        """Proof that a job's receipt is in the log as it is now."""
        stored = await self._find(job_id, principal)
        checkpoint = await self.checkpoint()
        hashes = self._tree.inclusion(stored.leaf_index, checkpoint.tree_size)
        return InclusionProof(
            leaf_index=stored.leaf_index,
            checkpoint=checkpoint,
            hashes=[item.hex() for item in hashes],
            leaf_hash=self._tree.leaf_hash(stored.leaf_index).hex(),
        )

    async def consistency(self, old_size: int) -> ConsistencyProof:
        """Proof that the log of now begins with what it was when it had `old_size` receipts."""
        checkpoint = await self.checkpoint()
        if old_size > checkpoint.tree_size:
            raise invalid("old_size", f"the log has {checkpoint.tree_size} receipts")
        hashes = self._tree.consistency(old_size, checkpoint.tree_size)
        return ConsistencyProof(old_size=old_size, checkpoint=checkpoint, hashes=[item.hex() for item in hashes])

    async def _proof(self, stored: StoredReceipt) -> bytes:
        checkpoint = await self.checkpoint()
        hashes = self._tree.inclusion(stored.leaf_index, checkpoint.tree_size)
        return str(InclusionPath(index=stored.leaf_index, path=tuple(hashes), note=checkpoint.note)).encode()

    async def _grown(self) -> Tree:
        """The tree over all leaves that are stored by now."""
        async with self._growing:
            for leaf in await self._store.receipt_leaves(len(self._tree)):
                self._tree.append(leaf)
        return self._tree

    async def _find(self, job_id: str, principal: Principal) -> StoredReceipt:
        """The receipt, which outlives its job."""
        stored = await self._store.receipt(job_id)
        if stored is not None and principal.sees(stored.workspace_id):
            return stored
        record = await find_job(self._store, principal, job_id)
        if not is_terminal(record.job.state):
            raise ServiceError(
                Reason.ERROR_REASON_RECEIPT_NOT_READY,
                f"Receipt not available for {short_name(record.job.state)} job: it gets one when it ends",
            )
        raise ServiceError(Reason.ERROR_REASON_RECEIPT_NOT_GENERATED)
