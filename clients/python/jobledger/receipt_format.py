"""What a receipt is made of: its canonical form, its hash, and the in-toto statement around it.

Those who write receipts and those who check them read this one definition. Needs `rfc8785` (extra `verify`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

RECEIPT_VERSION = 1
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://jobledger.dev/receipt/v1"

HASH_FIELD = "receipt_hash"
HASH_PREFIX = "sha256:"


def canonical(document: Any) -> bytes:
    """The RFC 8785 form of a JSON document: the same document gives the same bytes.

    Raises:
        ValueError: it has no such form (NaN, integers from 2^53 on, lone surrogates), or is nested too deeply.
    """
    import rfc8785

    try:
        return rfc8785.dumps(document)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def receipt_hash(receipt: Mapping[str, Any]) -> str:
    """`sha256:` and the hash, lower-case hex, of the receipt's canonical form without the field that holds it.

    Raises:
        ValueError: the receipt has no canonical form.
    """
    rest = {name: value for name, value in receipt.items() if name != HASH_FIELD}
    return HASH_PREFIX + hashlib.sha256(canonical(rest)).hexdigest()


def statement(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """The in-toto Statement v1 whose predicate is the receipt."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": subjects(receipt),
        "predicateType": PREDICATE_TYPE,
        "predicate": receipt,
    }


def subjects(receipt: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """What the statement is about: the receipt itself, since a job may leave nothing else, then its outputs."""
    outputs = ((f"outputs/{output['path']}", output["sha256"]) for output in receipt["outputs"])
    named = [("receipt", receipt[HASH_FIELD].removeprefix(HASH_PREFIX)), *outputs]
    return [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in named]
