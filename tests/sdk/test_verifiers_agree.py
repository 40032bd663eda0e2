"""The verifier of the package and the one that needs nothing of ours say the same of whatever they are given.

What was changed is not signed again: what only the key's holder could make is left to the tests of either.
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
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobledger.cli.receipt import command
from jobledger.tlog import InclusionProof
from receipt_documents import EXAMPLE, ROOT
from receipt_samples import SIGNER, STRANGER, envelope

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


def agree(place: Path) -> int:
    """What both say."""
    options = [f"--proof={place / NAMES[2]}", f"--log-key={place / NAMES[3]}", f"--artifacts={place / 'output'}"]
    files = [str(place / NAMES[0]), "--keys", str(place / NAMES[1])]
    ours = CliRunner().invoke(command, ["verify", *files, *options])
    assert ours.exception is None or isinstance(ours.exception, SystemExit), ours.exception
    assert theirs(place, *options) == ours.exit_code, ours.output
    return ours.exit_code


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
    "receipt.tlog-proof": changed(PROOF_JSON)
    | damaged(FILES["receipt.tlog-proof"])
    | damaged(json.dumps(PROOF_JSON).encode()),
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
    (0, lambda place: (place / NAMES[2]).write_text(json.dumps(PROOF_JSON))),
    (0, lambda place: (place / NAMES[2]).write_text(json.dumps(PROOF_JSON | {"leaf_index": "1"}))),
    (2, lambda place: (place / NAMES[2]).write_text(json.dumps(PROOF_JSON | {"leaf_index": True}))),
    (2, lambda place: (place / NAMES[2]).write_text(json.dumps(PROOF_JSON | {"leaf_index": 1.0}))),
    (1, lambda place: (place / NAMES[2]).write_text(json.dumps(PROOF_JSON | {"leaf_index": 2}))),
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
