"""`make audit`: known vulnerabilities of the locked packages, and for which of them nothing could be looked up.

    python tests/audit.py PIP_AUDIT LOCK_FILE ...

Exit code 0: none is known, of those that could be looked up. 1: there are some. What was not looked up is told:
pip-audit itself is content where its source knows none of the packages.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SECONDS = 300


@dataclass
class Findings:
    """Of all lock files: packages by name and version."""

    vulnerable: dict[str, list[str]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    checked: set[str] = field(default_factory=set)

    def add(self, dependency: dict[str, Any]) -> None:
        """Takes what pip-audit says of one package."""
        name = f"{dependency['name']} {dependency.get('version', '')}".strip()
        if "skip_reason" in dependency:
            self.unknown.add(name)
            return
        self.checked.add(name)
        if dependency["vulns"]:
            self.vulnerable[name] = [_told(vulnerability) for vulnerability in dependency["vulns"]]

    def report(self) -> list[str]:
        """Lines for people."""
        lines = [f"{name}: {told}" for name, all_told in sorted(self.vulnerable.items()) for told in all_told]
        if self.unknown:
            lines.append(
                f"not checked: {len(self.unknown)} packages, such as {min(self.unknown)}: nothing is told of them"
            )
        lines.append(
            f"checked: {len(self.checked)} packages, {len(self.vulnerable)} of them with known vulnerabilities"
        )
        return lines


def _told(vulnerability: dict[str, Any]) -> str:
    fixed = ", ".join(vulnerability["fix_versions"])
    return f"{vulnerability['id']}, {f'mended in {fixed}' if fixed else 'not mended yet'}"


def main(program: str, files: Sequence[str]) -> int:
    """Looks up what the files name. Returns the exit code."""
    findings = Findings()
    for file in files:
        command = [program, "--progress-spinner=off", "--disable-pip", "--require-hashes", "--format=json", "-r", file]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            dependencies = json.loads(run.stdout)["dependencies"]
        except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
            print(f"not checked: {file}: the source of vulnerabilities can't be read ({type(error).__name__})")
            continue
        for dependency in dependencies:
            findings.add(dependency)
    print("\n".join(findings.report()))
    return 1 if findings.vulnerable else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
