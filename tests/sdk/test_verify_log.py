"""A receipt held against the log of its installation, and that log against what a verifier has seen of it before."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger.checks import WITHOUT_CHECKPOINT, WITHOUT_PROOF, VerificationReport
from jobledger.receipts import Consistency, LogProof, verify
from jobledger.tlog import InclusionProof, LogFormatError, LogProofError
from jobledger_server.core.merkle import Tree
from receipt_documents import checkpoint_of, consistency_of, inclusion_of, log_key
from receipt_samples import KEYS, SEALED, SIGNER, detail, failed

OURS = 1
BEFORE = [b"a", SEALED.leaf, b"c", b"d", b"e"]
LATER = Tree([*BEFORE, b"f", b"g"])


def check(
    tree: Tree, *, kept: str | None = None, consistency: bytes | None = None, size: int | None = None
) -> VerificationReport:
    """The good receipt, with the proof that a server makes of its log as it is, or was at some size."""
    connection = Consistency.parse(consistency) if consistency is not None else None
    proof = LogProof(inclusion_of(tree, OURS, size), str(log_key()), kept, connection)
    return verify(SEALED.envelope, keys=KEYS, log_proof=proof)


def without(index: int) -> Tree:
    """The log as a server shows it that has removed a receipt, and goes on."""
    return Tree([leaf for number, leaf in enumerate([*BEFORE, b"f", b"g"]) if number != index])


def test_a_log_that_has_grown_is_still_the_log_that_was_seen() -> None:
    report = check(LATER, kept=checkpoint_of(LATER, 5), consistency=consistency_of(LATER, 5))
    assert (report.exit_code, failed(report)) == (0, set())
    assert not {WITHOUT_PROOF, WITHOUT_CHECKPOINT} & set(report.caveats)
    assert detail(report, "log_consistency") == "all 5 receipts of then are among the 7"


def test_the_very_same_log_needs_no_further_proof() -> None:
    assert check(LATER, kept=checkpoint_of(LATER)).exit_code == 0


@pytest.mark.parametrize("removed", [0, 2, 3, 4])
def test_a_removed_log_entry_is_refused(removed: int) -> None:
    """The server proves its new log as well as it can: our receipt is in it, and yet it is not what was seen."""
    tree = without(removed)
    text = inclusion_of(tree, OURS - (removed == 0))
    proof = LogProof(text, str(log_key()), checkpoint_of(LATER, 5), Consistency.parse(consistency_of(tree, 5)))
    report = verify(SEALED.envelope, keys=KEYS, log_proof=proof)
    assert (report.exit_code, failed(report)) == (1, {"log_consistency"})
    assert "a receipt is gone or changed" in detail(report, "log_consistency")


def test_a_removed_log_entry_shows_where_another_took_its_place() -> None:
    tree = Tree([*BEFORE[:2], b"another", *BEFORE[3:]])
    report = check(tree, kept=checkpoint_of(LATER, 5))
    assert (report.exit_code, failed(report)) == (1, {"log_consistency"})
    assert "not the same ones" in detail(report, "log_consistency")


def test_a_receipt_that_was_removed_itself_has_no_proof() -> None:
    report = check(without(OURS), kept=checkpoint_of(LATER, 5))
    assert (report.exit_code, failed(report)) == (1, {"log_inclusion"})


@pytest.mark.parametrize("consistency", [None, consistency_of(LATER, 5), consistency_of(Tree([b"a", SEALED.leaf]), 1)])
def test_a_checkpoint_rolled_back_is_refused(consistency: bytes | None) -> None:
    report = check(Tree(BEFORE[:3]), kept=checkpoint_of(LATER, 5), consistency=consistency)
    assert report.exit_code == 1
    assert "log_not_rolled_back" in failed(report)
    assert "it was rolled back" in detail(report, "log_not_rolled_back")


def test_a_log_that_was_rolled_back_and_has_grown_again_is_refused() -> None:
    tree = Tree([*BEFORE[:3], b"x", b"y", b"z"])
    report = check(tree, kept=checkpoint_of(LATER, 5), consistency=consistency_of(tree, 5))
    assert failed(report) == {"log_consistency"}


def test_a_proof_that_is_older_than_the_checkpoint_holds_if_that_goes_on_from_it() -> None:
    report = check(LATER, size=3, kept=checkpoint_of(LATER, 5), consistency=consistency_of(LATER, 3, 5))
    assert (report.exit_code, failed(report)) == (0, set())


def test_a_log_that_has_grown_without_proof_could_not_be_checked() -> None:
    report = check(LATER, kept=checkpoint_of(LATER, 5))
    assert (report.exit_code, failed(report)) == (2, set())
    assert "no proof given" in detail(report, "log_consistency")


def test_a_proof_of_consistency_between_others_is_refused() -> None:
    report = check(LATER, kept=checkpoint_of(LATER, 5), consistency=consistency_of(LATER, 4))
    assert failed(report) == {"log_consistency"}
    assert "of the sizes 4 and 7, not 5 and 7" in detail(report, "log_consistency")


def test_a_checkpoint_that_another_has_signed_is_refused() -> None:
    report = check(LATER, kept=checkpoint_of(LATER, 5, SIGNER))
    assert failed(report) == {"log_checkpoint"}


NO_CHECKPOINTS = ("hello", "", "\n\n", "{}", "{", '{"note": 5}', '{"note": "\\ud800\\n\\n"}')


@pytest.mark.parametrize("kept", NO_CHECKPOINTS)
def test_a_checkpoint_that_is_none_could_not_be_checked(kept: str) -> None:
    report = check(LATER, kept=kept)
    assert (report.exit_code, failed(report)) == (2, set())
    assert [it.name for it in report.checks if it.status == "skipped"] == ["log_checkpoint"]


def test_what_a_proof_or_a_checkpoint_proves_is_not_among_what_is_not_proven() -> None:
    proof = verify(SEALED.envelope, keys=KEYS, log_proof=LogProof(inclusion_of(LATER, OURS), str(log_key())))
    assert WITHOUT_PROOF not in proof.caveats
    assert WITHOUT_CHECKPOINT in proof.caveats
    refused = check(LATER, kept=checkpoint_of(LATER, 5, SIGNER))
    assert WITHOUT_CHECKPOINT in refused.caveats


def answered(tree: Tree, *, index: object = OURS, hashes: object = None) -> str:
    """A proof as `/v1/receipts/inclusion` answers it."""
    path = [it.hex() for it in tree.inclusion(OURS, len(tree))]
    checkpoint = {"tree_size": len(tree), "root_hash": tree.root(len(tree)).hex(), "note": checkpoint_of(tree)}
    return json.dumps({"leaf_index": index, "checkpoint": checkpoint, "hashes": path if hashes is None else hashes})


def test_proof_and_checkpoint_are_taken_as_the_rest_api_answers_them() -> None:
    kept = json.dumps({"tree_size": 5, "root_hash": "00" * 32, "note": checkpoint_of(LATER, 5)})
    between = Consistency.parse(consistency_of(LATER, 5))
    report = verify(
        SEALED.envelope, keys=KEYS, log_proof=LogProof(answered(LATER), str(log_key()), f"\n{kept}", between)
    )
    assert (report.exit_code, failed(report)) == (0, set())
    for index in (OURS, str(OURS)):
        assert InclusionProof.parse(answered(LATER, index=index)) == InclusionProof.parse(inclusion_of(LATER, OURS))


@pytest.mark.parametrize("index", ["01", True, 1.5, -1, None, [1], 2**53])
def test_the_index_of_a_proof_is_a_number_and_nothing_else(index: object) -> None:
    with pytest.raises(LogFormatError):
        InclusionProof.parse(answered(LATER, index=index))


@pytest.mark.parametrize("hashes", [[1], ["00"], ["GG" * 32], ["0 " * 32], [["00" * 32]], {}, "00" * 32])
def test_the_hashes_of_a_proof_are_in_hex(hashes: object) -> None:
    with pytest.raises(LogFormatError):
        InclusionProof.parse(answered(LATER, hashes=hashes))


def test_a_checkpoint_without_a_proof_could_not_be_compared() -> None:
    report = verify(SEALED.envelope, keys=KEYS, log_proof=LogProof(None, str(log_key()), checkpoint_of(LATER)))
    assert (report.exit_code, failed(report)) == (2, set())
    assert "no proof" in detail(report, "log_inclusion")
    assert {WITHOUT_PROOF, WITHOUT_CHECKPOINT} <= set(report.caveats)


def test_without_the_key_of_the_log_nothing_is_known_of_it() -> None:
    report = verify(SEALED.envelope, keys=KEYS, log_proof=LogProof(inclusion_of(LATER, OURS), None))
    assert (report.exit_code, failed(report)) == (2, set())
    whole = str(log_key())
    for key in (
        "no key",
        "",
        "a+b",
        whole.replace("example", "example "),
        f"+{whole.partition('+')[2]}",
        f"\ud800{whole}",
    ):
        report = verify(SEALED.envelope, keys=KEYS, log_proof=LogProof("", key))
        assert (report.exit_code, failed(report)) == (2, set())


NOT_HEX = consistency_of(LATER, 5).replace(b'"hashes": ["', b'"hashes": ["x')


TRUE = consistency_of(LATER, 5).replace(b'"old_size": 5', b'"old_size": true')


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", NOT_HEX, TRUE])
def test_what_is_no_proof_of_consistency_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(LogProofError):
        Consistency.parse(data)


@given(st.integers(2, 12), st.data())
def test_any_history_but_the_true_one_is_refused(size: int, data: st.DataObject) -> None:
    """Whatever one leaf of what was seen is changed, no proof connects the log with the checkpoint."""
    leaves = [b"a", SEALED.leaf, *(b"%d" % number for number in range(size - 2))]
    changed = data.draw(st.integers(0, size - 1).filter(lambda index: index != OURS))
    grown = [*leaves, b"more"]
    kept = checkpoint_of(Tree(leaves))
    assert check(Tree(grown), kept=kept, consistency=consistency_of(Tree(grown), size)).exit_code == 0
    rewritten = Tree([b"changed" if index == changed else leaf for index, leaf in enumerate(grown)])
    report = check(rewritten, kept=kept, consistency=consistency_of(rewritten, size))
    assert failed(report) == {"log_consistency"}


def test_every_pair_of_states_of_a_log_is_consistent() -> None:
    for old, new in itertools.combinations(range(2, 8), 2):
        report = check(LATER, size=new, kept=checkpoint_of(LATER, old), consistency=consistency_of(LATER, old, new))
        assert report.exit_code == 0, (old, new)
