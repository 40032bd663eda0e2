"""Whether a receipt is in the installation's log, and whether that log has kept what it once had."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from jobledger import merkle, strict_json, tlog
from jobledger.checks import Check, holds_or_failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """Proof that the log of `new_size` receipts begins with the log of `old_size` (RFC 9162)."""

    old_size: int
    new_size: int
    hashes: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Reads what `GET /v1/receipts/consistency` answers.

        Raises:
            LogFormatError: it is no such thing.
        """
        try:
            match strict_json.loads(data):
                case {"old_size": int(old), "checkpoint": {"tree_size": int(new)}, "hashes": list(hashes)} if not (
                    isinstance(old, bool) or isinstance(new, bool)
                ):
                    return cls(old_size=old, new_size=new, hashes=tlog.hex_hashes(hashes))
        except ValueError as error:
            raise tlog.LogFormatError(f"not a proof of consistency: {error}") from None
        raise tlog.LogFormatError("a proof of consistency has the members old_size, checkpoint and hashes")


@dataclass(frozen=True, slots=True)
class LogProof:
    """What shows that a receipt is in an installation's log, and that the log is still the same.

    Attributes:
        text: the receipt's proof of inclusion, as text or in JSON; None where there is none.
        key: the log's key, `name+id+key`; None where there is none, so that nothing can be checked.
        kept: a checkpoint of the log that the verifier kept, as text or in JSON.
        consistency: what connects it with the checkpoint of the proof.
    """

    text: str | None
    key: str | None
    kept: str | None = None
    consistency: Consistency | None = None


def log_checks(proof: LogProof, payload: bytes) -> Iterator[Check]:
    """The checks that `proof` allows of the receipt with this payload."""
    if proof.key is None:
        yield Check("log_key", "skipped", "no key of the log given: nothing says whose log it is")
        return
    try:
        key = tlog.NoteKey.parse(proof.key)
    except tlog.LogProofError as error:
        yield Check("log_key", "skipped", str(error))
        return
    inclusion, current = _inclusion(proof, payload, key)
    yield inclusion
    if proof.kept is None:
        return
    try:
        kept = tlog.open_checkpoint(tlog.note_of(proof.kept), key)
    except tlog.LogProofError as error:
        yield _refused("log_checkpoint", error)
        return
    yield Check("log_checkpoint", "ok", f"{kept.size} receipts, signed by {kept.origin}")
    if current is None:
        yield Check("log_consistency", "skipped", "no proof that holds: nothing to compare the checkpoint with")
    else:
        yield from _history(kept, current, proof.consistency)


def _inclusion(proof: LogProof, payload: bytes, key: tlog.NoteKey) -> tuple[Check, tlog.Checkpoint | None]:
    if proof.text is None:
        return Check("log_inclusion", "skipped", "no proof given that the log has this receipt"), None
    try:
        parsed = tlog.InclusionProof.parse(proof.text)
        checkpoint = parsed.check(hashlib.sha256(payload).digest(), key)
    except tlog.LogProofError as error:
        return _refused("log_inclusion", error), None
    place = f"leaf index {parsed.index}, counted from 0, of {checkpoint.size} receipts in {checkpoint.origin}"
    return Check("log_inclusion", "ok", place), checkpoint


def _refused(name: str, error: tlog.LogProofError) -> Check:
    """What is no such text at all could not be checked; what is one and does not hold is refused."""
    return Check(name, "skipped" if isinstance(error, tlog.LogFormatError) else "failed", str(error))


def _history(kept: tlog.Checkpoint, current: tlog.Checkpoint, consistency: Consistency | None) -> Iterator[Check]:
    """The log of the proof, held against the log as the verifier once saw it."""
    if current.size == kept.size:
        yield Check("log_not_rolled_back", "ok", f"{kept.size} receipts then and now")
        same = current.root == kept.root
        detail = "the very same log" if same else "the log has as many receipts as then, and not the same ones"
        yield holds_or_failed("log_consistency", same, detail)
        return
    older, newer = sorted((kept, current), key=lambda checkpoint: checkpoint.size)
    between = None if consistency is None else _connection(older, newer, consistency)
    if older is kept:
        yield Check("log_not_rolled_back", "ok", f"{kept.size} receipts then, {current.size} now")
    else:
        grown_since = between is not None and between.status == "ok"
        detail = (
            f"the proof is of a log with {current.size} receipts, and you have seen it with {kept.size}: it was rolled"
            " back, or the proof is older than your checkpoint: fetch it anew"
        )
        yield holds_or_failed("log_not_rolled_back", grown_since, "the proof is older" if grown_since else detail)
    yield between or Check(
        "log_consistency",
        "skipped",
        f"no proof given that the log of {newer.size} receipts begins with the log of {older.size}",
    )


def _connection(older: tlog.Checkpoint, newer: tlog.Checkpoint, consistency: Consistency) -> Check:
    if (consistency.old_size, consistency.new_size) != (older.size, newer.size):
        detail = (
            f"it is of the sizes {consistency.old_size} and {consistency.new_size}, not {older.size} and {newer.size}"
        )
        return Check("log_consistency", "failed", detail)
    holds = merkle.consistency_holds(
        old_size=older.size,
        old_root=older.root,
        new_size=newer.size,
        new_root=newer.root,
        path=consistency.hashes,
    )
    if holds:
        return Check("log_consistency", "ok", f"all {older.size} receipts of then are among the {newer.size}")
    return Check(
        "log_consistency", "failed", "the log does not begin with what it had then: a receipt is gone or changed"
    )
