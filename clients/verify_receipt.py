#!/usr/bin/env python3
"""Verifies a Jobledger receipt with nothing of Jobledger: the standard library of Python (3.11 or later) and `openssl`.

ENVELOPE is the receipt with `format=dsse`, KEYS keys.json or what /v1/receipts/keys answers, --proof the receipt with
`format=proof`. Exits with 0 valid, 1 not valid, 2 not checked, 3 wrong usage."""

import argparse
import functools
import hashlib
import json
import re
import subprocess
import tempfile
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

KIND = ("https://in-toto.io/Statement/v1", "https://jobledger.dev/receipt/v1")
# A receipt as JSON without its `config`, members in order: S is a text, N a whole number.
FORM = r"""{"attempt":N,"cancelled_by":(S|null),"command":\[(S,?)*\],"config_snapshot":{},
"environment":{"engine_version":S,"host":S,"isolation":(S|null),"os":S,"platform":S,"python":S},
"inputs":\[({"file_path":(S|null),"reference":(S|null),"sha256":(S|null),"type":"(file|reference)"},?)*\],
"job_id":"job_[0-9a-z]{26}","log":{"entries":N,"sha256":(S|null)},"outputs":\[({"path":S,"sha256":S,
"size_bytes":(N|"[0-9]+")},?)*\],"receipt_hash":S,"receipt_status":"((?P<final>final)|partial)","receipt_version":1,
"refused":\[({"path":S,"reason":S},?)*\],"requested_by":S,"run_id":"run_[0-9a-z]{26}","source_pins":{(S:S,?)*},
"summary":{"error_code":(S|null),"error_message":(S|null),"errors_count":N,"exit_code":(-?N|null),"signal":(-?N|null),
"status":"(?(final)completed|(failed|cancelled))","warnings_count":N},"timestamps":{"completed":(S|null),
"created":(S|null),"started":(S|null)}}"""
TYPES = {"S": r'"[^"\\]*+(\\.[^"\\]*+)*+"', "N": r"(0|[1-9][0-9]*)", "\n": ""}
PROOF = re.compile(r"c2sp\.org/tlog-proof@v1\n(?:extra [^\n]*\n)?index (0|[1-9][0-9]{0,17})((?:\n[^\n]*)*)")
STATE = re.compile(r"([^\n]+)\n(0|[1-9][0-9]{0,17})\n([^\n]*)(?:\n.*)?", re.DOTALL)
EPOCH = datetime.fromtimestamp(0, UTC)  # what has no time zone can't be held against it
decoded = functools.partial(b64decode, validate=True)
NotValid = AssertionError  # why the receipt is not to be believed; any other error: why something can't be read
PEM, DER = (b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"), bytes.fromhex("302a300506032b6570032100")


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


def opened(envelope: Any, keys: dict[str, tuple[bytes, dict[str, timedelta]]]) -> tuple[bytes, Any]:
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
    times, statement = signers[0], parsed(payload)
    receipt, stated = statement["predicate"], statement["predicate"]["receipt_hash"]
    demand((statement["_type"], statement["predicateType"]) == KIND, "this is no statement about a receipt")
    # In the canonical form (RFC 8785) the receipt stands between these two, and its hash is over all but its own field.
    raw = payload[payload.index(b'"predicate":') + 12 : payload.rindex(b',"predicateType":')]
    computed = hashlib.sha256(raw.replace(f'"receipt_hash":"{stated}",'.encode(), b"", 1)).hexdigest()
    demand(stated == f"sha256:{computed}", "receipt_hash is not the hash of the receipt")
    named = [("receipt", stated[7:]), *((f"outputs/{it['path']}", it["sha256"]) for it in receipt["outputs"])]
    subjects = [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in named]
    demand(statement["subject"] == subjects, "the statement's subjects are not the receipt and its outputs")
    form = receipt | {"config_snapshot": type(receipt["config_snapshot"])()}
    form = json.dumps(form, sort_keys=True, separators=(",", ":"))
    fits = re.fullmatch(re.sub("[SN\n]", lambda it: TYPES[it[0]], FORM), form)
    demand(fits and len(dict(named)) == len(named), "the receipt has not the form of receipts, or contradicts itself")
    ended = datetime.fromisoformat(receipt["timestamps"]["completed"]) - EPOCH if times else timedelta()
    demand(ended <= times.get("valid_until", ended), "the key had been replaced when the job ended")
    return payload, receipt


def check_log(payload: bytes, proof: str, log_key: str) -> None:
    name, key_id, key = re.findall(r"\A([^\s+]+)\+([0-9a-f]{8})\+(\S+)\Z", log_key.strip())[0]
    raw, its_id = decoded(key), hashlib.sha256(f"{name}\n".encode() + decoded(key)).hexdigest()[:8]
    demand((len(raw), raw[:1], its_id) == (33, b"\x01", key_id), "the log's key is none", ValueError)
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
    demand(index < size and len(path) == inner + (index >> inner).bit_count(), "the log has no such leaf there")
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
    given, keys, odd, what = parser.parse_args(), {}, 2, "the file of keys"
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
        (payload, receipt), odd, what = opened(envelope, keys), 2, "the proof or the log's key"
        if given.proof:
            log_key = given.log_key.read_bytes().decode() if given.log_key else document["log_key"]
            check_log(payload, given.proof.read_bytes().decode(), log_key)
        what = "a file that the receipt names"
        for output in receipt["outputs"] if given.artifacts else ():
            file = (given.artifacts.resolve() / output["path"]).resolve()
            demand(file.is_relative_to(given.artifacts.resolve()), f"{output['path']} leads out of {given.artifacts}")
            demand(file.is_file(), f"{output['path']} is not there", OSError)
            with file.open("rb") as content:
                found = (hashlib.file_digest(content, "sha256").hexdigest(), str(file.stat().st_size))
            demand(found == (output["sha256"], str(output["size_bytes"])), f"{output['path']} is not as it was")
    except Exception as error:  # noqa: BLE001 - whatever is odd about a file that somebody has sent
        code = 1 if isinstance(error, NotValid) else 2 if isinstance(error, OSError) else odd
        why = str(error) if isinstance(error, NotValid | OSError) else f"{what} can't be understood: {error!r}"
        parser.exit(code, f"NOT {('VALID', 'CHECKED')[code - 1]}: {ascii(why[:200])[1:-1]}\n")
    print(ascii(f"valid: {receipt['job_id']} {receipt['summary']['status']}")[1:-1])  # noqa: T201 - that is what it is for
