"""A receipt held against the log of its installation, and that log against what a verifier has seen of it before."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger.checks import WITHOUT_LOG, VerificationReport
from jobledger.receipts import Consistency, LogProof, verify
from jobledger.tlog import LogProofError
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
    assert WITHOUT_LOG not in report.caveats
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


def test_a_checkpoint_that_is_none_is_refused() -> None:
    assert failed(check(LATER, kept="hello")) == {"log_checkpoint"}


def test_a_checkpoint_without_a_proof_could_not_be_compared() -> None:
    report = verify(SEALED.envelope, keys=KEYS, log_proof=LogProof(None, str(log_key()), checkpoint_of(LATER)))
    assert (report.exit_code, failed(report)) == (2, set())
    assert "no proof" in detail(report, "log_inclusion")
    assert WITHOUT_LOG in report.caveats


def test_without_the_key_of_the_log_nothing_is_known_of_it() -> None:
    report = verify(SEALED.envelope, keys=KEYS, log_proof=LogProof(inclusion_of(LATER, OURS), None))
    assert (report.exit_code, failed(report)) == (2, set())
    assert failed(verify(SEALED.envelope, keys=KEYS, log_proof=LogProof("", "no key"))) == {"log_key"}


NOT_HEX = consistency_of(LATER, 5).replace(b'"hashes": ["', b'"hashes": ["x')


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", NOT_HEX])
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
