"""What `make audit` says, whatever its source has to tell."""

import sys
from pathlib import Path

import audit
import pytest

VULNERABLE = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
SOUND = {"name": "b", "version": "1", "vulns": []}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("dependencies", "code", "lines"),
    [
        ([SOUND], 0, ["checked: 1 packages, 0 of them with known vulnerabilities"]),
        (
            [VULNERABLE, SOUND],
            1,
            ["a 1: CVE-1, mended in 2", "checked: 2 packages, 1 of them with known vulnerabilities"],
        ),
        (
            [SKIPPED],
            0,
            [
                "not checked: 1 packages, such as c: nothing is told of them",
                "checked: 0 packages, 0 of them with known vulnerabilities",
            ],
        ),
        (None, 0, ["not checked: x.lock: the source of vulnerabilities can't be read (JSONDecodeError)"]),
    ],
    ids=["sound", "vulnerable", "skipped", "unreachable"],
)
def test_what_could_not_be_looked_up_is_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    dependencies: list[dict[str, object]] | None,
    code: int,
    lines: list[str],
) -> None:
    """In place of pip-audit, which needs the network, there is a script that says what it would."""
    import json

    said = "" if dependencies is None else json.dumps({"dependencies": dependencies})
    program = tmp_path / "pip-audit"
    program.write_text(f"#!{sys.executable}\nprint({said!r})\n")
    program.chmod(0o755)
    assert audit.main(str(program), ["x.lock"]) == code
    printed = capsys.readouterr().out.splitlines()
    assert printed[: len(lines)] == lines
