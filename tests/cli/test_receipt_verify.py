"""`jobledger receipt verify` as a stranger uses it: what it accepts, by which line it refuses, and its exit codes."""

import json
import shutil
from pathlib import Path

import pytest
from cli.program import Outcome, Run
from jobledger_server.core.merkle import Tree
from receipt_documents import EXAMPLE, checkpoint_of, consistency_of
from receipt_samples import JOB_ID

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


async def test_json_has_the_same_in_one_document(run: Run, place: Path) -> None:
    done = await verified(run, place, *EVERYTHING, "--json")
    document = json.loads(done.out)
    assert (done.code, document["valid"], document["exit_code"]) == (0, True, 0)
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
    done = await verified(run, place, "--proof=receipt.tlog-proof")
    assert (done.code, lines(done, "skipped")) == (2, {"log_key"})
    assert (await verified(run, place, "--proof=receipt.tlog-proof", "--log-key=elsewhere")).code == 0


@pytest.mark.parametrize("option", ["--proof=none", "--checkpoint=none", "--artifacts=none", "--artifacts=keys.json"])
async def test_files_that_are_not_there_are_wrong_usage(run: Run, place: Path, option: str) -> None:
    assert (await verified(run, place, option)).code == 3


async def test_a_proof_of_consistency_that_is_none_is_named(run: Run, place: Path) -> None:
    done = await verified(run, place, "--proof=receipt.tlog-proof", "--consistency=keys.json")
    assert done.code == 2
    assert "keys.json" in done.err


async def test_a_receipt_without_its_envelope_could_not_be_checked(run: Run, place: Path) -> None:
    done = await run("receipt", "verify", f"{place}/receipt.json", f"--keys={place}/keys.json")
    assert (done.code, lines(done, "skipped")) == (2, {"envelope"})
