"""`jobledger receipt verify` as a stranger uses it: what it accepts, by which line it refuses, and its exit codes."""

import json
import shutil
from pathlib import Path

import pytest
from cli.program import Outcome, Run
from jobledger.cli.receipt import EXIT_CODES
from jobledger.receipt_format import receipt_hash
from jobledger_server.core.merkle import Tree
from jobledger_server.core.receipts import seal
from receipt_documents import EXAMPLE, ROOT, checkpoint_of, consistency_of
from receipt_samples import JOB_ID, RECEIPT, SIGNER, STRANGER

EVERYTHING = (
    "--artifacts=output",
    "--proof=receipt.tlog-proof",
    "--checkpoint=checkpoint.txt",
    "--consistency=consistency.json",
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "example"))


async def verified(run: Run, place: Path, *options: str) -> Outcome:
    at_place = [f"{name}={place / value}" for name, _, value in (option.partition("=") for option in options) if value]
    plain = [option for option in options if "=" not in option]
    return await run("receipt", "verify", f"{place}/receipt.dsse.json", f"--keys={place}/keys.json", *at_place, *plain)


def lines(outcome: Outcome, mark: str) -> set[str]:
    found = [line.split() for line in outcome.out.splitlines()]
    return {words[1].rstrip(":") for words in found if words[0] == mark}


async def test_all_that_can_be_checked_has_a_line_and_what_is_not_proven_too(run: Run, place: Path) -> None:
    done = await verified(run, place, *EVERYTHING, "--job", JOB_ID)
    assert (done.code, done.err) == (0, "")
    expected = {"signature", "key_known", "key_not_revoked", "key_valid_then", "receipt_hash", "job_id"}
    expected |= {"log_inclusion", "log_checkpoint", "log_not_rolled_back", "log_consistency", "artifact:out/report.csv"}
    assert expected <= lines(done, "ok")
    assert "\nVALID\n" in done.out
    assert done.out.count("does not prove") == 3


async def test_an_envelope_can_come_by_standard_input(run: Run, place: Path) -> None:
    keys = f"--keys={place}/keys.json"
    done = await run("receipt", "verify", "-", keys, stdin=(place / "receipt.dsse.json").read_bytes())
    assert (done.code, done.err) == (0, "")
    assert (await run("receipt", "verify", "-", keys)).code != 0


async def test_json_has_the_same_in_one_document(run: Run, place: Path) -> None:
    done = await verified(run, place, *EVERYTHING, "--json")
    document = json.loads(done.out)
    assert (done.code, document["valid"], document["exit_code"]) == (0, True, 0)
    assert (document["job_id"], document["receipt"]) == (JOB_ID, json.loads((place / "receipt.json").read_text()))
    assert {check["status"] for check in document["checks"]} == {"ok"}
    assert len(document["caveats"]) == 3


async def test_a_receipt_of_another_job_is_refused(run: Run, place: Path) -> None:
    done = await verified(run, place, "--job", "job_00000000000000000000000000")
    assert (done.code, lines(done, "FAILED")) == (1, {"job_id"})


async def test_a_removed_log_entry_is_refused(run: Run, place: Path) -> None:
    other = Tree([b"another log", b"of as many", b"receipts", b"as ours"])
    (place / "checkpoint.txt").write_text(checkpoint_of(other, 2))
    (place / "consistency.json").write_bytes(consistency_of(other, 2))
    done = await verified(run, place, *EVERYTHING)
    assert (done.code, lines(done, "FAILED")) == (1, {"log_consistency"})


async def test_a_checkpoint_rolled_back_is_refused(run: Run, place: Path) -> None:
    (place / "checkpoint.txt").write_text(checkpoint_of(Tree([b"%d" % number for number in range(9)])))
    done = await verified(run, place, "--proof=receipt.tlog-proof", "--checkpoint=checkpoint.txt")
    assert (done.code, lines(done, "FAILED")) == (1, {"log_not_rolled_back"})


async def test_a_revoked_key_is_refused(run: Run, place: Path) -> None:
    keys = json.loads((place / "keys.json").read_text())
    keys["keys"][0]["revoked_at"] = "2026-02-01T00:00:00Z"
    (place / "keys.json").write_text(json.dumps(keys))
    done = await verified(run, place)
    assert (done.code, lines(done, "FAILED")) == (1, {"key_not_revoked"})


@pytest.mark.parametrize(
    ("options", "skipped"),
    [
        (["--checkpoint=checkpoint.txt"], {"log_inclusion", "log_consistency"}),
        (["--proof=receipt.tlog-proof", "--checkpoint=checkpoint.txt"], {"log_consistency"}),
    ],
)
async def test_what_could_not_be_checked_is_no_success(
    run: Run, place: Path, options: list[str], skipped: set[str]
) -> None:
    done = await verified(run, place, *options)
    assert (done.code, lines(done, "skipped"), lines(done, "FAILED")) == (2, skipped, set())


async def test_the_key_of_the_log_is_found_beside_the_keys_or_where_it_is_said_to_be(run: Run, place: Path) -> None:
    (place / "log.vkey").rename(place / "elsewhere")
    keys = json.loads((place / "keys.json").read_text())
    (place / "keys.json").write_text(json.dumps({"keys": keys["keys"]}))
    done = await verified(run, place, "--proof=receipt.tlog-proof")
    assert (done.code, lines(done, "skipped")) == (2, {"log_key"})
    assert (await verified(run, place, "--proof=receipt.tlog-proof", "--log-key=elsewhere")).code == 0


async def test_one_file_of_keys_is_enough_where_it_has_the_logs(run: Run, place: Path) -> None:
    """As the server writes it and `/v1/receipts/keys` answers it."""
    (place / "log.vkey").unlink()
    assert (await verified(run, place, "--proof=receipt.tlog-proof")).code == 0


# --- what a stranger wrote ------------------------------------------------------------------------------------------

NASTY = "\x1b[2J\x9b1m\nVALID\n\u202e\0\ud800"


def forged(place: Path, key_id: str) -> None:
    """An envelope that nobody of ours signed, with nasty text wherever there can be some."""
    text = NASTY[:-1]  # what is signed is UTF-8
    outputs = [RECEIPT["outputs"][0] | {"path": text}]
    receipt = RECEIPT | {"job_id": text, "outputs": outputs, "timestamps": RECEIPT["timestamps"] | {"completed": text}}
    signature = json.loads(seal(receipt | {"receipt_hash": receipt_hash(receipt)}, STRANGER).envelope)
    signature["signatures"][0]["keyid"] = key_id
    (place / "receipt.dsse.json").write_text(json.dumps(signature))


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("key_id", [SIGNER.key_id, NASTY])
async def test_what_a_stranger_wrote_is_neither_told_nor_looked_for(
    run: Run, place: Path, key_id: str, as_json: bool
) -> None:
    forged(place, key_id)
    done = await verified(run, place, *EVERYTHING, "--job", JOB_ID, *(["--json"] if as_json else []))
    assert (done.code, done.err) == (1, "")
    assert {"\x1b", "\x9b", "\u202e", "\0"}.isdisjoint(done.out)
    assert "artifact:" not in done.out
    assert "\nVALID" not in done.out
    if not as_json:
        assert lines(done, "skipped") == {"payload", "artifacts", "log_consistency"}


async def test_text_that_nobody_has_checked_changes_no_terminal(run: Run, place: Path) -> None:
    """Without keys the receipt is looked at all the same."""
    forged(place, NASTY)
    done = await run("receipt", "verify", f"{place}/receipt.dsse.json", f"--artifacts={place}/output", "--job=x")
    assert done.code == 1
    assert {"\x1b", "\x9b", "\u202e", "\0"}.isdisjoint(done.out + done.err)
    assert "\nVALID" not in done.out
    assert "artifact:\\x1b[2J" in done.out


ODD = ("none", "output", "binary", "zero")
EXITS = [
    *[(2, f"--{name}={odd}") for name in ("proof", "checkpoint", "consistency", "log-key", "keys") for odd in ODD],
    *[(2, f"--{name}=text") for name in ("consistency", "keys")],
    *[(2, f"--{name}={odd}") for name in ("artifacts",) for odd in ("none", "text")],
    (2, "--data-dir=none"),
    (3, "--no-such-option"),
    (3, "another-argument"),
    (3, "--proof"),
    (1, "--job=job_00000000000000000000000000"),
    (0, "--artifacts=output"),
]


@pytest.mark.parametrize(("code", "option"), EXITS, ids=[option for _, option in EXITS])
async def test_what_can_not_be_read_is_not_checked_and_only_the_command_line_is_wrong_usage(
    run: Run, place: Path, code: int, option: str
) -> None:
    """The one definition: 1, it does not hold; 2, it could not be checked; 3, the command line itself is wrong."""
    (place / "binary").write_bytes(b"\xff\x00{")
    (place / "zero").touch()
    (place / "text").write_text("hello")
    name, equals, value = option.partition("=")
    if name == "--data-dir":
        done = await run("receipt", "verify", f"{place}/receipt.dsse.json", f"--data-dir={place / value}")
    else:
        others = ["--proof=receipt.tlog-proof"] if name in ("--checkpoint", "--consistency", "--log-key") else []
        path = f"{name}={place / value}" if equals and name != "--job" else option
        more = [f"{it}={place / file}" for it, _, file in (other.partition("=") for other in others)]
        keys = [] if name == "--keys" else [f"--keys={place}/keys.json"]
        done = await run("receipt", "verify", f"{place}/receipt.dsse.json", *keys, *more, path)
    assert done.code == code, done.out + done.err
    assert "Traceback" not in done.err
    assert (code != 2) or value in done.err or "skipped" in done.out


@pytest.mark.parametrize(("file", "code"), [("none", 2), ("output", 2), ("zero", 1), ("log.vkey", 1)])
async def test_an_envelope_that_is_none_is_not_valid_and_one_that_is_not_there_not_checked(
    run: Run, place: Path, file: str, code: int
) -> None:
    (place / "zero").touch()
    done = await run("receipt", "verify", f"{place}/{file}", f"--keys={place}/keys.json")
    assert (done.code, "Traceback" in done.err) == (code, False)


async def test_the_help_and_the_page_have_the_exit_codes_in_the_same_words(run: Run) -> None:
    told = " ".join((await run("receipt", "verify", "--help")).out.split())
    page = " ".join((ROOT / "server" / "docs" / "receipts.md").read_text().split())
    assert EXIT_CODES in told
    assert EXIT_CODES.removeprefix("Exit codes: ") in page


@pytest.mark.parametrize("odd", ["binary", "log.vkey", "brace"])
async def test_a_checkpoint_that_is_none_has_no_size_to_ask_for(run: Run, place: Path, odd: str) -> None:
    (place / "binary").write_bytes(b"\xff\x00{")
    (place / "brace").write_text("{}")
    done = await run("receipt", "consistency", f"--checkpoint={place / odd}")
    assert (done.code, "Traceback" in done.err) == (2, False)
    assert odd in done.err


async def test_a_receipt_without_its_envelope_could_not_be_checked(run: Run, place: Path) -> None:
    done = await run("receipt", "verify", f"{place}/receipt.json", f"--keys={place}/keys.json")
    assert (done.code, lines(done, "skipped")) == (2, {"envelope"})
