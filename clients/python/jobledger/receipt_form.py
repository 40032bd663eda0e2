"""Whether a receipt is what its schema says, and agrees with itself. Needs `jsonschema-rs` (extra `verify`)."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from jobledger.checks import Check

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator

NAME = "receipt_form"


def form_check(receipt: Mapping[str, Any]) -> Check:
    """Whether it has the members and types of `receipt-v1.schema.json`, no others, and names no output twice.

    That the status in the summary is one of `receipt_status` is part of the schema.
    """
    config = receipt.get("config_snapshot")
    # What is in a job's configuration is its own: any object will do, however deep.
    document = {**receipt, "config_snapshot": {} if isinstance(config, dict) else config}
    try:
        error = next(_schema().iter_errors(document), None)
    except ValueError as unreadable:
        return Check(NAME, "failed", f"it can't be held against the schema: {unreadable}")
    if error is not None:
        place = ".".join(map(str, error.instance_path)) or "receipt"
        return Check(NAME, "failed", f"{place}: {error.message[:200]}")
    paths = [output["path"] for output in receipt["outputs"]]
    if len(set(paths)) != len(paths):
        return Check(NAME, "failed", "it names an output twice")
    return Check(NAME, "ok", "as the schema of receipts says")


@cache
def _schema() -> "Draft202012Validator":
    from jsonschema_rs import Draft202012Validator

    text = resources.files("jobledger").joinpath("receipt-v1.schema.json").read_text("utf-8")
    return Draft202012Validator(json.loads(text))
