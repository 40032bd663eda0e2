#!/usr/bin/env python3
"""Verifies a Jobledger receipt with nothing of Jobledger: the standard library of Python (3.11 or later) and `openssl`.

ENVELOPE is the receipt with `format=dsse`, KEYS keys.json or what /v1/receipts/keys answers, --proof the receipt with
`format=proof` or what /v1/receipts/inclusion answers. Exits with 0 valid, 1 not valid, 2 not checked, 3 wrong usage.
"""

import argparse
import functools
import hashlib
import json
import re
import subprocess
import tempfile
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

RECEIPT = ("https://in-toto.io/Statement/v1", "https://jobledger.dev/receipt/v1", 1)
PROOF = re.compile(r"c2sp\.org/tlog-proof@v1\n(?:extra [^\n]*\n)?index (0|[1-9][0-9]{0,17})((?:\n[^\n]*)*)")
STATE = re.compile(r"([^\n]+)\n(0|[1-9][0-9]{0,17})\n([^\n]*)(?:\n.*)?", re.DOTALL)
EPOCH = datetime.fromtimestamp(0, UTC)  # what has no time zone can't be held against it
decoded = functools.partial(b64decode, validate=True)
Keys = dict[str, tuple[bytes, dict[str, timedelta]]]  # by its id, the key's DER form, and the times that are told of it
PEM, DER = (b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"), bytes.fromhex("302a300506032b6570032100")


class NotValid(Exception):  # noqa: N818 - it reads as what is said of the receipt
    """Why the receipt is not to be believed. Any other exception says why something can't be read."""


def demand(holds: object, reason: str, error: type[Exception] = NotValid) -> bool:
    if not holds:
        raise error(reason)
    return True


def parsed(text: bytes) -> Any:
    once = lambda its: demand(len(dict(its)) == len(its), "JSON with a key twice", ValueError) and dict(its)  # noqa: E731
    finite = lambda it: demand(abs(float(it)) < float("inf"), "no number of JSON", ValueError) and float(it)  # noqa: E731
    return json.loads(text.decode(), object_pairs_hook=once, parse_float=finite, parse_constant=finite)


def signed(public_der: bytes, signature: bytes, data: bytes) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        for name, content in (("key", public_der), ("sig", signature), ("data", data)):
            Path(directory, name).write_bytes(content)
        command = "openssl pkeyutl -verify -rawin -pubin -keyform DER -inkey key -sigfile sig -in data".split()  # noqa: SIM905 - as it is typed
        return subprocess.run(command, cwd=directory, capture_output=True, check=False).returncode == 0


def opened(envelope: Any, keys: Keys) -> tuple[bytes, dict[str, timedelta]]:
    standard = str.maketrans("-_", "+/")
    payload, kind = decoded(envelope["payload"].translate(standard)), envelope["payloadType"]
    told = [(it.get("keyid", "").translate({}), it["sig"].translate(standard)) for it in envelope["signatures"]]
    demand(kind == "application/vnd.in-toto+json", f"the payload is of another type: {kind}")
    known = [(*keys[key_id], sig) for key_id, sig in [(key_id, decoded(sig)) for key_id, sig in told] if key_id in keys]
    valid = [it for it in known if "revoked_at" not in it[1]]
    demand(valid, "the key is revoked" if known else "signed by a foreign key")
    to_sign = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
    signers = [times for der, times, signature in valid if signed(der, signature, to_sign)]
    demand(signers, "the signature is not of these bytes")
    return payload, signers[0]


def check_receipt(payload: bytes, times: dict[str, timedelta]) -> Any:
    statement = parsed(payload)
    receipt, stated = statement["predicate"], statement["predicate"]["receipt_hash"]
    kind = (statement["_type"], statement["predicateType"], receipt["receipt_version"])
    demand(kind == RECEIPT, "this is no statement about a receipt of version 1")
    # In the canonical form (RFC 8785) the receipt stands between these two, and its hash is over all but its own field.
    raw = payload[payload.index(b'"predicate":') + 12 : payload.rindex(b',"predicateType":')]
    parts = raw.split(field := f'"receipt_hash":"{stated}",'.encode())
    found = [hashlib.sha256(field.join(parts[:n]) + field.join(parts[n:])).hexdigest() for n in range(1, len(parts))]
    demand(stated in [f"sha256:{it}" for it in found], "receipt_hash is not the hash of the receipt")
    named = [("receipt", stated[7:]), *((f"outputs/{it['path']}", it["sha256"]) for it in receipt["outputs"])]
    subjects = [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in named]
    demand(statement["subject"] == subjects, "the statement's subjects are not the receipt and its outputs")
    ended = datetime.fromisoformat(receipt["timestamps"]["completed"]) - EPOCH
    demand(ended <= times.get("valid_until", ended), "the key had been replaced when the job ended")
    return receipt


def check_log(payload: bytes, proof: str, log_key: str) -> None:
    name, key_id, key = re.findall(r"\A([^\s+]+)\+([0-9a-f]{8})\+(\S+)\Z", log_key.strip())[0]
    raw, its_id = decoded(key), hashlib.sha256(f"{name}\n".encode() + decoded(key)).hexdigest()[:8]
    demand((len(raw), raw[:1], its_id) == (33, b"\x01", key_id), "the log's key is none", ValueError)
    if proof.lstrip().startswith("{"):
        told = parsed(proof.encode())
        hashes = [f"{b64encode(bytes.fromhex(it)).decode()}\n" for it in told["hashes"] + []]
        proof = f"c2sp.org/tlog-proof@v1\nindex {told['leaf_index']}\n{''.join(hashes)}\n{told['checkpoint']['note']}"
    head, _, note = proof.partition("\n\n")
    text, signatures = note.rsplit("\n\n", 1)
    found: Any = (PROOF.fullmatch(head), STATE.fullmatch(text))
    demand(all(found), "it has not the lines of a proof", ValueError)
    (index, path), (origin, size, root) = (it.groups() for it in found)
    *path, root = [decoded(it) for it in (*path.split("\n")[1:], root)]
    demand({len(it) for it in (*path, root)} == {32}, "it has something else than hashes", ValueError)
    demand(origin == name, "the proof is of another log")
    ours = re.compile(f"— {re.escape(name)} ([A-Za-z0-9+/]+={{0,2}})")
    theirs = (decoded(it[1]) for it in map(ours.fullmatch, signatures.splitlines()) if it)
    held = (it[:4].hex() == key_id and signed(DER + raw[1:], it[4:], f"{text}\n".encode()) for it in theirs)
    demand(any(held), "the checkpoint is not signed by the log's key")
    index, size = int(index), int(size)
    inner = (index ^ (size - 1)).bit_length()  # up to there siblings are on either side, above on the left
    fits = len(path) == inner + (index >> inner).bit_count()
    demand(index < size and fits, "the log has no such leaf, or the proof is of another place")
    computed = hashlib.sha256(b"\x00" + hashlib.sha256(payload).digest()).digest()
    for level, sibling in enumerate(path):
        pair = sibling + computed if level >= inner or index >> level & 1 else computed + sibling
        computed = hashlib.sha256(b"\x01" + pair).digest()
    demand(computed == root, "the log does not have this receipt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Verifies a receipt of a job.")
    for name in ("envelope", "keys", "--proof", "--log-key", "--artifacts"):
        parser.add_argument(name, type=Path)
    parser.error = lambda message: parser.exit(3, f"{message}\n")  # type: ignore[method-assign]
    given, keys, odd, what = parser.parse_args(), Keys(), 2, "the file of keys"
    try:
        document = parsed(given.keys.read_bytes())
        for entry in document["keys"] + []:
            first, *lines, last = entry["public_key_pem"].encode().strip().splitlines()
            der, key_id = decoded(b"".join(lines)), entry["key_id"]
            right = ((first, last), entry["algorithm"], der[:-32]) == (PEM, "ed25519", DER) and key_id not in keys
            demand(right and hashlib.sha256(der).hexdigest() == key_id, "a key's id is wrong or there twice", OSError)
            told = [name for name in ("revoked_at", "valid_from", "valid_until") if entry.get(name) is not None]
            keys[key_id] = der, {name: datetime.fromisoformat(str(entry[name])) - EPOCH for name in told}
        odd, what = 1, "the envelope"
        envelope = parsed(given.envelope.read_bytes())
        demand("payload" in envelope or "receipt_version" not in envelope, "a receipt without its envelope", OSError)
        payload, times = opened(envelope, keys)
        receipt, odd, what = check_receipt(payload, times), 2, "the proof or the log's key"
        if given.proof:
            log_key = given.log_key.read_bytes().decode() if given.log_key else document["log_key"]
            check_log(payload, given.proof.read_bytes().decode(), log_key)
        for output in receipt["outputs"] if given.artifacts else ():
            file = (given.artifacts.resolve() / output["path"]).resolve()
            demand(file.is_relative_to(given.artifacts.resolve()), f"{output['path']} leads out of {given.artifacts}")
            demand(file.is_file(), f"{output['path']} is not there", OSError)
            with file.open("rb") as content:
                demand(hashlib.file_digest(content, "sha256").hexdigest() == output["sha256"], f"{file} was changed")
    except Exception as error:  # noqa: BLE001 - whatever is odd about a file that somebody has sent
        code = 1 if isinstance(error, NotValid) else 2 if isinstance(error, OSError) else odd
        why = str(error) if isinstance(error, NotValid | OSError) else f"{what} can't be understood: {error!r}"
        parser.exit(code, f"NOT {('VALID', 'CHECKED')[code - 1]}: {ascii(why[:200])[1:-1]}\n")
    print(f"valid: {receipt['job_id']} {receipt['summary']['status']}")  # noqa: T201 - that is what it is for
