"""The verifier of the package and the one that needs nothing of ours say the same of whatever they are given.

What only the key's holder could make is signed again. A proof in JSON is read by the package's alone, and so are the
patterns of texts.
"""

import base64
import hashlib
import json
import runpy
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobledger.cli.receipt import command
from jobledger.receipt_format import receipt_hash
from jobledger.tlog import InclusionProof
from jobledger_server.core.merkle import Tree
from jobledger_server.core.receipts import seal
from receipt_documents import EXAMPLE, ROOT, inclusion_of
from receipt_samples import RECEIPT, SIGNER, STRANGER, envelope

STANDALONE = str(ROOT / "clients" / "verify_receipt.py")
FILES = {path.name: path.read_bytes() for path in EXAMPLE.iterdir() if path.is_file()}
PROOF = InclusionProof.parse(FILES["receipt.tlog-proof"].decode())
ENVELOPE, KEYS = (json.loads(FILES[name]) for name in ("receipt.dsse.json", "keys.json"))
PROOF_JSON = {
    "leaf_index": PROOF.index,
    "checkpoint": {"tree_size": 4, "root_hash": "", "note": PROOF.note},
    "hashes": [it.hex() for it in PROOF.path],
    "leaf_hash": "",
}
LOG_KEY = FILES["log.vkey"].decode().strip()
NAMES = ("receipt.dsse.json", "keys.json", "receipt.tlog-proof", "log.vkey")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("agree") / "example"))


@pytest.fixture(autouse=True)
def _nothing_from_before(place: Path) -> None:
    for name in NAMES:
        (place / name).write_bytes(FILES[name])


def theirs(place: Path, *options: str) -> int:
    """The exit code of the standalone verifier, in this process; it may raise nothing but that."""
    code: Any = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [STANDALONE, *map(str, (place / NAMES[0], place / NAMES[1])), *options])
        try:
            runpy.run_path(STANDALONE, run_name="__main__")
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return code


def options_at(place: Path) -> list[str]:
    return [f"--proof={place / NAMES[2]}", f"--log-key={place / NAMES[3]}", f"--artifacts={place / 'output'}"]


def ours(place: Path) -> Result:
    """What the package's verifier says."""
    files = [str(place / NAMES[0]), "--keys", str(place / NAMES[1])]
    result = CliRunner().invoke(command, ["verify", *files, *options_at(place)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def agree(place: Path) -> int:
    """What both say."""
    result = ours(place)
    assert theirs(place, *options_at(place)) == result.exit_code, result.output
    return result.exit_code


# --- changes ----------------------------------------------------------------------------------------------------------

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        "",
        " ",
        "1",
        "true",
        "2026-02-01T00:00:00Z",
        "2026-02-01",
        "2999-01-01T00:00:00+00:00",
        "\ud800",
        "é",
        "=",
        "-_",
        "A" * 64,
    ]
) | st.sampled_from([None, True, False, 0, 1, -1, 1.0, 1e300, 2**53, 2**70, [], {}, [None], {"note": 1}, [[]]])


def places(document: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all that a document holds."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(way for key, member in inner for way in places(member, (*path, key)))]


@st.composite
def changed(draw: st.DrawFn, document: Any) -> bytes:
    """The document with something else, something less, something twice, or something more in it."""
    copy = json.loads(json.dumps(document))
    *way, last = draw(st.sampled_from(places(copy)[1:]))
    holder = copy
    for step in way:
        holder = holder[step]
    match draw(st.sampled_from(["replace", "remove", "repeat", "add"])):
        case "replace":
            holder[last] = draw(ODD)
        case "remove":
            del holder[last]
        case "repeat" if isinstance(holder, list):
            holder.append(holder[last])
        case _:
            (holder.append if isinstance(holder, list) else lambda value: holder.update(more=value))(draw(ODD))
    return json.dumps(copy).encode()


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with a few of them replaced, removed or put in."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 2))
        data = (
            data[:start]
            + draw(st.sampled_from([b"", b"A", b"-", b"\n", b"\x00", b"\xff", b"{", b'"', b"1", b" "]))
            + data[end:]
        )
    return data


CHANGES: dict[str, st.SearchStrategy[bytes]] = {
    "receipt.dsse.json": changed(ENVELOPE) | damaged(FILES["receipt.dsse.json"]),
    "keys.json": changed(KEYS) | changed({"keys": [*KEYS["keys"], *KEYS["keys"]]}) | damaged(FILES["keys.json"]),
    "receipt.tlog-proof": damaged(FILES["receipt.tlog-proof"]),
    "log.vkey": damaged(FILES["log.vkey"]),
}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_both_verifiers_say_the_same_of_a_changed_file(place: Path, name: str, data: st.DataObject) -> None:
    (place / name).write_bytes(data.draw(CHANGES[name]))
    agree(place)


def with_key(**changes: Any) -> bytes:
    return json.dumps({"keys": [KEYS["keys"][0] | changes]}).encode()


def pem(der: bytes) -> dict[str, str]:
    text = f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----\n"
    return {"public_key_pem": text, "key_id": hashlib.sha256(der).hexdigest()}


def signed_by_both(place: Path) -> None:
    """A stranger's signature before ours."""
    stranger = json.loads(envelope(base64.b64decode(ENVELOPE["payload"]), STRANGER))
    document = ENVELOPE | {"signatures": [*stranger["signatures"], *ENVELOPE["signatures"]]}
    (place / NAMES[0]).write_text(json.dumps(document))


KNOWN: Sequence[tuple[int, Callable[[Path], object]]] = [
    (0, lambda _: None),
    (0, signed_by_both),
    (2, lambda place: (place / NAMES[2]).write_bytes(b"")),
    (2, lambda place: (place / NAMES[2]).write_bytes(FILES[NAMES[2]].replace(b"index 1", b"index 01"))),
    (2, lambda place: (place / NAMES[3]).write_text("example.com/log+00000000+" + LOG_KEY.rpartition("+")[2])),
    (2, lambda place: (place / NAMES[1]).write_text(json.dumps({"keys": KEYS["keys"] * 2}))),
    (2, lambda place: (place / NAMES[1]).write_bytes(with_key(revoked_at=""))),
    (2, lambda place: (place / NAMES[1]).write_bytes(with_key(revoked_at=False))),
    (1, lambda place: (place / NAMES[1]).write_bytes(with_key(revoked_at="2026-02-01T00:00:00Z"))),
    (
        0,
        lambda place: (place / NAMES[1]).write_bytes(
            with_key(revoked_at=None, valid_until="2026-01-02T03:04:07.5+00:00")
        ),
    ),
    (1, lambda place: (place / NAMES[1]).write_bytes(with_key(valid_until="2026-01-02T03:04:06.999999Z"))),
    (2, lambda place: (place / NAMES[1]).write_bytes(with_key(valid_until="2026-01-02T03:04:08"))),
    (2, lambda place: (place / NAMES[1]).write_bytes(with_key(algorithm="rsa"))),
    (2, lambda place: (place / NAMES[1]).write_bytes(with_key(**pem(b"not a key at all")))),
    (1, lambda place: (place / NAMES[0]).write_bytes(b"")),
    (1, lambda place: (place / NAMES[0]).write_text(json.dumps(ENVELOPE | {"more": float("nan")}))),
    (1, lambda place: (place / NAMES[0]).write_text(json.dumps(ENVELOPE | {"signatures": []}))),
    (2, lambda place: (place / NAMES[0]).write_bytes(FILES["receipt.json"])),
    (2, lambda place: (place / NAMES[0]).unlink()),
    (1, lambda place: (place / NAMES[0]).write_bytes(envelope(b"{}", SIGNER))),
    (1, lambda place: (place / NAMES[0]).write_bytes(envelope(b"[" * 100_000, SIGNER))),
]


@pytest.mark.parametrize("number", range(len(KNOWN)))
def test_both_verifiers_have_the_verdict_that_is_meant(place: Path, number: int) -> None:
    code, change = KNOWN[number]
    change(place)
    assert agree(place) == code


@pytest.mark.parametrize(("index", "code"), [(1, 0), ("1", 0), (True, 2), (1.0, 2), (2, 1)])
def test_the_package_reads_a_proof_in_json_too(place: Path, index: object, code: int) -> None:
    (place / NAMES[2]).write_text(json.dumps(PROOF_JSON | {"leaf_index": index}))
    assert ours(place).exit_code == code


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=changed(PROOF_JSON) | damaged(json.dumps(PROOF_JSON).encode()))
def test_no_proof_in_json_makes_the_package_fail(place: Path, data: bytes) -> None:
    (place / NAMES[2]).write_bytes(data)
    assert ours(place).exit_code in (0, 1, 2)


# --- what the key's holder signed -------------------------------------------------------------------------------------


def hold(place: Path, receipt: dict[str, Any]) -> None:
    """Puts a receipt there that is signed, is in the log, and agrees with its hash and its subjects."""
    sealed = seal(receipt | {"receipt_hash": receipt_hash(receipt)}, SIGNER)
    (place / NAMES[0]).write_bytes(sealed.envelope)
    (place / NAMES[2]).write_text(inclusion_of(Tree([b"before", sealed.leaf]), 1))


OUTPUT = RECEIPT["outputs"][0]
SUMMARY = RECEIPT["summary"]
SIGNED: Sequence[tuple[int, dict[str, Any]]] = [
    (0, {}),
    (0, {"config_snapshot": {"receipt_status": "partial", "deep": [[{}]]}}),
    (0, {"outputs": [], "command": [], "inputs": [], "refused": [], "source_pins": {}}),
    (0, {"receipt_status": "partial", "summary": SUMMARY | {"status": "failed", "exit_code": None, "signal": 9}}),
    (0, {"outputs": [OUTPUT | {"size_bytes": str(OUTPUT["size_bytes"])}]}),
    (1, {"outputs": [OUTPUT | {"size_bytes": OUTPUT["size_bytes"] + 1}]}),
    (1, {"outputs": [OUTPUT | {"size_bytes": -1}]}),
    (1, {"outputs": [OUTPUT | {"size_bytes": True}]}),
    (1, {"outputs": [OUTPUT, OUTPUT]}),
    (1, {"outputs": [OUTPUT | {"path": "../secret"}]}),
    (2, {"outputs": [OUTPUT | {"path": "nul\0"}]}),
    (1, {"receipt_version": True}),
    (1, {"receipt_version": 2}),
    (1, {"summary": None}),
    (1, {"summary": {}}),
    (1, {"summary": SUMMARY | {"more": 1}}),
    (1, {"summary": SUMMARY | {"warnings_count": "1"}}),
    (1, {"receipt_status": "partial"}),
    (1, {"summary": SUMMARY | {"status": "failed"}}),
    (1, {"timestamps": {"completed": RECEIPT["timestamps"]["completed"]}}),
    (1, {"config_snapshot": None}),
    (1, {"config_snapshot": []}),
    (1, {"command": "make"}),
    (1, {"attempt": 1.5}),
    (1, {"more": 1}),
    (1, {"job_id": None}),
    (1, {"job_id": "\x1b[2Jvalid"}),
]


@pytest.mark.parametrize("number", range(len(SIGNED)))
def test_both_hold_a_signed_receipt_against_its_form_and_its_files(place: Path, number: int) -> None:
    code, changes = SIGNED[number]
    hold(place, RECEIPT | changes)
    assert agree(place) == code


@pytest.mark.parametrize("name", sorted(set(RECEIPT) - {"receipt_hash", "outputs"}))
def test_both_refuse_a_signed_receipt_without_a_member(place: Path, name: str) -> None:
    hold(place, {key: value for key, value in RECEIPT.items() if key != name})
    assert agree(place) == 1


def test_neither_shows_what_a_terminal_would_obey_and_a_path_does_not_blame_the_proof(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(place, RECEIPT | {"job_id": "\x1b[2J\u202e", "outputs": [OUTPUT | {"path": "\x1b[1m\nVALID\0"}]})
    assert ours(place).exit_code == 1
    theirs(place, *options_at(place))
    hold(place, RECEIPT | {"outputs": [OUTPUT | {"path": "\x1b[1m\nVALID\0"}]})
    told = ours(place)
    assert (told.exit_code, theirs(place, *options_at(place))) == (2, 2)
    shown = capsys.readouterr()
    assert not {"\x1b", "\u202e", "\0"} & set(told.output + shown.out + shown.err)
    assert "a file that the receipt names can't be understood" in shown.err
