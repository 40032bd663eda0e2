"""The documents of `server/docs/receipt-example`: one of each kind that a verifier meets, made anew.

PYTHONPATH=tests python -m receipt_documents    writes them
"""

import json
from collections.abc import Mapping
from pathlib import Path

from jobledger.tlog import Checkpoint, InclusionProof, NoteKey, sign_checkpoint
from jobledger_server.core.merkle import Tree
from receipt_samples import REPORT, SEALED, SIGNER, STRANGER, SampleSigner

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "server" / "docs" / "receipt-example"
LOG_SIGNER = STRANGER


def log_key(signer: SampleSigner = LOG_SIGNER, name: str = "example.com/log") -> NoteKey:
    return NoteKey(name=name, public_key=signer.key.public_key().public_bytes_raw())


def checkpoint_of(tree: Tree, size: int | None = None, signer: SampleSigner = LOG_SIGNER) -> str:
    """The signed state of a log, by default as it is."""
    size = len(tree) if size is None else size
    key = log_key(signer)
    return sign_checkpoint(Checkpoint(origin=key.name, size=size, root=tree.root(size)), key, signer.key.sign)


def inclusion_of(tree: Tree, index: int, size: int | None = None) -> str:
    """A proof as `format=proof` gives it."""
    size = len(tree) if size is None else size
    path = tuple(tree.inclusion(index, size))
    return str(InclusionProof(index=index, path=path, note=checkpoint_of(tree, size)))


def consistency_of(tree: Tree, old: int, new: int | None = None) -> bytes:
    """A proof as `/v1/receipts/consistency` answers it."""
    new = len(tree) if new is None else new
    note = {"tree_size": new, "root_hash": tree.root(new).hex(), "note": checkpoint_of(tree, new)}
    hashes = [it.hex() for it in tree.consistency(old, new)]
    return json.dumps({"old_size": old, "checkpoint": note, "hashes": hashes}).encode() + b"\n"


def documents() -> Mapping[str, bytes]:
    """By the name of the file."""
    tree = Tree([b"a receipt of before", SEALED.leaf, b"a receipt of later", b"and another"])
    key = {
        "key_id": SIGNER.key_id,
        "algorithm": "ed25519",
        "public_key_pem": SIGNER.public_key_pem.decode(),
        "valid_from": "2026-01-01T00:00:00Z",
    }
    return {
        "receipt.json": SEALED.receipt,
        "receipt.dsse.json": SEALED.envelope,
        "receipt.tlog-proof": inclusion_of(tree, 1).encode(),
        "checkpoint.txt": checkpoint_of(tree, 2).encode(),
        "consistency.json": consistency_of(tree, 2),
        "keys.json": json.dumps({"keys": [key], "log_key": str(log_key())}, indent=2).encode() + b"\n",
        "log.vkey": f"{log_key()}\n".encode(),
        "output/out/report.csv": REPORT,
    }


def write() -> None:
    for name, data in documents().items():
        path = EXAMPLE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    write()
