"""Names of artifacts that no reader should be given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger_server.core.output_names import MAX_PATH, reason_to_refuse_name


@pytest.mark.parametrize(
    "path", ["a", "a/b.txt", "100%", "50%20off", "%41", "%zz", "é%C3%A9", "...", "a:b", "x" * MAX_PATH]
)
def test_names_that_lead_nowhere_else_are_fine(path: str) -> None:
    assert reason_to_refuse_name(path) == ""


@pytest.mark.parametrize(
    "path",
    ["%2e%2e/x", "a/%2E", "%252fx", "a%5Cb", "%00", "%0a", "a\u202eb", "a\nb", "a\\b", "x" * 5000, "\u2028", "\x9b"],
)
def test_names_that_mislead_are_refused(path: str) -> None:
    assert reason_to_refuse_name(path)


@given(st.text())
def test_every_name_gets_an_answer(path: str) -> None:
    assert isinstance(reason_to_refuse_name(path), str)
