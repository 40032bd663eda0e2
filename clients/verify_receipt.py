#!/usr/bin/env python3
"""Verifies a Jobledger receipt with nothing of Jobledger: Python's standard library and the `openssl` program.

    python3 verify_receipt.py ENVELOPE KEYS [--proof FILE --log-key FILE] [--artifacts DIR]

ENVELOPE is the receipt with `format=dsse`, KEYS the server's keys.json or the answer of /v1/receipts/keys; the proof is
the receipt with `format=proof`, the log's key the server's log.vkey. Exits with 0 if all holds, else with 1.
"""

import argparse
import base64
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PAYLOAD_TYPE = "application/vnd.in-toto+json"
RECEIPT = ("https://in-toto.io/Statement/v1", "https://jobledger.dev/receipt/v1", 1)
HASH = re.compile(rb'"receipt_hash":"sha256:([0-9a-f]{64})",')
ED25519_DER_PREFIX = bytes.fromhex("302a300506032b6570032100")


class NotValid(Exception):  # noqa: N818 - it reads as what is said of the receipt
    """Why the receipt is not to be believed."""


def demand(holds: bool, reason: str) -> None:
    if not holds:
        raise NotValid(reason)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    demand(len(dict(pairs)) == len(pairs), "a JSON object has a key twice")
    return dict(pairs)


def parsed(data: bytes) -> Any:
    return json.loads(data.decode(), object_pairs_hook=unique)


def decoded(text: str) -> bytes:
    return base64.b64decode(text.translate(str.maketrans("-_", "+/")), validate=True)


def signed(public_der: bytes, signature: bytes, data: bytes) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        for name, content in (("key", public_der), ("sig", signature), ("data", data)):
            Path(directory, name).write_bytes(content)
        command = "openssl pkeyutl -verify -rawin -pubin -keyform DER -inkey key -sigfile sig -in data".split()  # noqa: SIM905 - as it is typed
        return subprocess.run(command, cwd=directory, capture_output=True, check=False).returncode == 0


def opened(envelope: Any, keys: Any) -> tuple[bytes, Any]:
    """The payload, and the key that signed it, if that is trusted."""
    payload, kind = decoded(envelope["payload"]), envelope["payloadType"]
    demand(kind == PAYLOAD_TYPE, f"the payload is of another type: {kind}")
    to_sign = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
    trusted = {key["key_id"]: key for key in keys["keys"]}
    known = [it for it in envelope["signatures"] if it.get("keyid") in trusted]
    demand(bool(known), "signed by a foreign key")
    valid = [it for it in known if not trusted[it["keyid"]].get("revoked_at")]
    demand(bool(valid), "the key is revoked")
    for it in valid:
        der = decoded("".join(trusted[it["keyid"]]["public_key_pem"].strip().splitlines()[1:-1]))
        demand(hashlib.sha256(der).hexdigest() == it["keyid"], "a key's id is not the hash of the key")
        if signed(der, decoded(it["sig"]), to_sign):
            return payload, trusted[it["keyid"]]
    raise NotValid("the signature is not of these bytes")


def check_receipt(payload: bytes) -> dict[str, Any]:
    """The receipt, if its hash and the subjects of the statement belong to it."""
    statement = parsed(payload)
    receipt: dict[str, Any] = statement["predicate"]
    kind = (statement["_type"], statement["predicateType"], receipt["receipt_version"])
    demand(kind == RECEIPT, "this is no statement about a receipt of version 1")
    # In the canonical form (RFC 8785) the receipt stands between these two, and its hash is over all but its own field.
    raw = payload[payload.index(b'"predicate":') + 12 : payload.rindex(b',"predicateType":')]
    found = [hit for hit in HASH.finditer(raw) if f"sha256:{hit[1].decode()}" == receipt["receipt_hash"]]
    rests = [raw[: hit.start()] + raw[hit.end() :] for hit in found]
    holds = any(hashlib.sha256(rest).hexdigest() == hit[1].decode() for hit, rest in zip(found, rests, strict=True))
    demand(holds, "receipt_hash is not the hash of the receipt")
    subjects = {"receipt": receipt["receipt_hash"].removeprefix("sha256:")}
    subjects.update({f"outputs/{it['path']}": it["sha256"] for it in receipt["outputs"]})
    stated = {it["name"]: it["digest"]["sha256"] for it in statement["subject"]}
    demand(stated == subjects, "the statement's subjects are not the receipt and its outputs")
    return receipt


def check_log(payload: bytes, proof: str, log_key: str) -> None:
    """Whether the log has the receipt: C2SP tlog-proof and tlog-checkpoint, RFC 6962."""
    head, _, note = proof.partition("\n\n")
    index, *path = [line for line in head.split("\n")[1:] if not line.startswith("extra ")]
    text, signature = note.rsplit("\n\n", 1)
    origin, size, root = (text + "\n").split("\n")[:3]
    name, key_id, key = log_key.strip().split("+", 2)
    demand(origin == name, "the proof is of another log")
    signatures = [decoded(line.split(" ")[2]) for line in signature.splitlines() if line.startswith(f"— {name} ")]
    der, body = ED25519_DER_PREFIX + decoded(key)[1:], f"{text}\n".encode()
    ours = [it[4:] for it in signatures if it[:4].hex() == key_id]
    demand(any(signed(der, it, body) for it in ours), "the checkpoint is not signed by the log's key")
    fn, sn = int(index.removeprefix("index ")), int(size) - 1
    demand(0 <= fn <= sn, "the log has no such leaf")
    computed = hashlib.sha256(b"\x00" + hashlib.sha256(payload).digest()).digest()
    for sibling in map(decoded, path):
        demand(sn > 0, "the proof has too many hashes")
        right = bool(fn & 1) or fn == sn
        computed = hashlib.sha256(b"\x01" + (sibling + computed if right else computed + sibling)).digest()
        while right and fn and not fn & 1:
            fn, sn = fn >> 1, sn >> 1
        fn, sn = fn >> 1, sn >> 1
    demand(sn == 0 and computed == decoded(root), "the log does not have this receipt")


def check_files(directory: Path, receipt: dict[str, Any]) -> None:
    root = directory.resolve()
    for output in receipt["outputs"]:
        file = (root / output["path"]).resolve()
        demand(file.is_relative_to(root) and file.is_file(), f"{output['path']} is not there")
        demand(hashlib.sha256(file.read_bytes()).hexdigest() == output["sha256"], f"{output['path']} was changed")


def main() -> None:
    parser = argparse.ArgumentParser(description="Verifies a receipt of a job.")
    for name in ("envelope", "keys", "--proof", "--log-key", "--artifacts"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    if given.proof and not given.log_key:
        parser.error("--proof needs --log-key")
    try:
        payload, key = opened(parsed(given.envelope.read_bytes()), parsed(given.keys.read_bytes()))
        receipt = check_receipt(payload)
        ended, until = receipt["timestamps"]["completed"], key.get("valid_until") or "9999"
        demand(ended.rstrip("Z") <= until.rstrip("Z"), "the key had been replaced when the job ended")
        if given.proof:
            check_log(payload, given.proof.read_text("utf-8"), given.log_key.read_text())
        if given.artifacts:
            check_files(given.artifacts, receipt)
    except (NotValid, ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        sys.exit(f"NOT VALID: {ascii(str(error))[1:-1]}")
    sys.stdout.write(f"valid: {receipt['job_id']} {receipt['summary']['status']}\n")


if __name__ == "__main__":
    main()
