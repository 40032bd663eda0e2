"""Names of artifacts that no reader should be given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger_server.core.output_names import MAX_PATH, reason_to_refuse_glob, reason_to_refuse_name


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "a/b.txt",
        "100%",
        "50%20off",
        "%41",
        "%zz",
        "é%C3%A9",
        "...a",
        "-x",
        "a b/ c",
        "CONTENT",
        "console.log",
        "a.con",
        "com10",
        "x" * MAX_PATH,
    ],
)
def test_names_that_lead_nowhere_else_are_fine(path: str) -> None:
    assert reason_to_refuse_name(path) == ""


@pytest.mark.parametrize(
    "path",
    ["%2e%2e/x", "a/%2E", "%252fx", "a%5Cb", "%00", "%0a", "a\u202eb", "a\nb", "a\\b", "x" * 5000, "\u2028", "\x9b"],
)
def test_names_that_mislead_are_refused(path: str) -> None:
    assert reason_to_refuse_name(path)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        *((path, "colon") for path in ("C:x", "a:b", "d/c:", "a::$DATA", "C%3Ax")),
        *((path, "at the end") for path in ("trail.", "sp ", "...", "d./x", "a/d /x", "x.txt.", "x%20")),
        *(
            (path, "device")
            for path in ("CON", "con", "Nul.txt", "d/aux", "lpt1.tar.gz", "COM9", "com\u00b9", "con .x")
        ),
        *((path, "device") for path in ("prn/x", "conin$", "%43ON")),
    ],
)
def test_names_that_are_others_on_windows_are_refused(path: str, why: str) -> None:
    assert why in reason_to_refuse_name(path) or "percent-decoded" in reason_to_refuse_name(path)


@pytest.mark.parametrize("glob", ["../x", "/etc/passwd", "a/../../x", "..", "**/..", "./x", "a//b", "a/", ".", ""])
def test_a_glob_that_can_name_nothing_is_told_so(glob: str) -> None:
    reason = reason_to_refuse_glob(glob)
    assert repr(glob) in reason
    assert ("leads out of output/" in reason) == (glob.startswith("/") or ".." in glob)


@pytest.mark.parametrize("glob", ["*", "**", "*.csv", "reports/**", "..a", "a..b/...", "**/x?"])
def test_other_globs_are_fine(glob: str) -> None:
    assert reason_to_refuse_glob(glob) == ""


@given(st.text())
def test_every_name_gets_an_answer(path: str) -> None:
    assert isinstance(reason_to_refuse_name(path), str)
