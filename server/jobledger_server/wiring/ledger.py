"""Opens what jobs are recorded in."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from jobledger_server.archive.files import ReceiptArchive
from jobledger_server.blobs.files import FileBlobs
from jobledger_server.config import Settings
from jobledger_server.core.clock import SystemClock
from jobledger_server.core.secret_references import AllowedSecrets
from jobledger_server.service.archive_check import ArchiveChecker
from jobledger_server.service.archiving import Archiver
from jobledger_server.service.damage import Damage
from jobledger_server.service.external_signer import ExternalSigner
from jobledger_server.service.restored import begin_new_log, is_restored
from jobledger_server.service.signing import KeyRing, open_ring
from jobledger_server.service.workspace import Workspaces
from jobledger_server.stores.sqlite.store import SqliteStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What jobs are recorded in."""

    store: SqliteStore
    clock: SystemClock
    blobs: FileBlobs
    workspaces: Workspaces
    keys: KeyRing
    archiver: Archiver
    damage: Damage


async def open_ledger(stack: AsyncExitStack, settings: Settings) -> Ledger:
    """Opens the store, the keys and the archive; they close with the stack."""
    data_dir, clock = settings.data_dir, SystemClock()
    store = await stack.enter_async_context(SqliteStore(data_dir / "jobledger.db"))
    blobs = FileBlobs(data_dir / "blobs")
    await asyncio.to_thread(blobs.discard_unfinished)
    workspaces = Workspaces(data_dir=data_dir, roots=settings.roots, secrets=AllowedSecrets.of(settings.secrets))
    external = ExternalSigner.of(settings.signer, settings.signer_key)
    if is_restored(data_dir):
        begin_new_log(data_dir / "keys")
    keys = await open_ring(data_dir / "keys", clock=clock, store=store, external=external)
    archive = ReceiptArchive(data_dir / "receipts")
    archiver = await stack.enter_async_context(Archiver(store=store, archive=archive, keys=keys))
    damage = Damage()
    checker = ArchiveChecker(directory=archive.directory, keys=data_dir / "keys", clock=clock, damage=damage)
    await stack.enter_async_context(checker)
    return Ledger(
        store=store,
        clock=clock,
        blobs=blobs,
        workspaces=workspaces,
        keys=keys,
        archiver=archiver,
        damage=damage,
    )
