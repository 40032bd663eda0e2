"""Receipts as they were stored, and what proves them."""

import asyncio

from jobledger.tlog import InclusionProof as InclusionPath
from jobledger.v1.job_service_pb2 import RECEIPT_FORMAT_DSSE, RECEIPT_FORMAT_PROOF, ReceiptFormat
from jobledger.v1.receipt_service_pb2 import Checkpoint, ConsistencyProof, InclusionProof, ListSigningKeysResponse

from jobledger_server.core.errors import Reason, ServiceError, invalid
from jobledger_server.core.merkle import Tree
from jobledger_server.core.policy import Principal
from jobledger_server.core.ports import Store, StoredReceipt, StoreUnavailableError
from jobledger_server.core.states import is_terminal, short_name
from jobledger_server.service.archiving import Archiver
from jobledger_server.service.lookup import find_job
from jobledger_server.service.signing import KeyRing


class Receipts:
    """GetReceipt, and the keys, checkpoints and proofs of ReceiptService."""

    def __init__(self, *, store: Store, keys: KeyRing, archiver: Archiver) -> None:
        self._store = store
        self._keys = keys
        self._archiver = archiver
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

    def signing_keys(self) -> ListSigningKeysResponse:
        """The public keys: all that a verifier has to be given."""
        return ListSigningKeysResponse(keys=self._keys.keys(), log_key=str(self._keys.log_key))

    async def checkpoint(self) -> Checkpoint:
        """The signed state of the log as it is now, which is in the archive by then.

        Raises:
            StoreUnavailableError: it can't be archived just now, or the archive has another log.
        """
        log = await self._archiver.caught_up()
        tree = await self._grown()
        if tree.root(log.size) != log.root:
            raise StoreUnavailableError("The receipts in the database are others than those in the archive: restart")
        return Checkpoint(tree_size=log.size, root_hash=log.root.hex(), note=self._keys.checkpoint(log.size, log.root))

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

    async def consistency(self, old_size: int, new_size: int | None = None) -> ConsistencyProof:
        """Proof that the log at `new_size` receipts, by default as it is now, begins with what it was at `old_size`."""
        checkpoint = await self.checkpoint()
        if max(old_size, new_size or 0) > checkpoint.tree_size:
            field = "old_size" if old_size > checkpoint.tree_size else "new_size"
            raise invalid(field, f"the log has {checkpoint.tree_size} receipts")
        if new_size is not None:
            if old_size > new_size:
                raise invalid("old_size", f"the older state has more receipts than the newer, which has {new_size}")
            checkpoint = self._signed(new_size)
        hashes = self._tree.consistency(old_size, checkpoint.tree_size)
        return ConsistencyProof(old_size=old_size, checkpoint=checkpoint, hashes=[item.hex() for item in hashes])

    def _signed(self, size: int) -> Checkpoint:
        """The signed state of the log when it had `size` receipts, which it has had."""
        root = self._tree.root(size)
        return Checkpoint(tree_size=size, root_hash=root.hex(), note=self._keys.checkpoint(size, root))

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
