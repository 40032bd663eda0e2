"""The demonstration's job: measures all Python sources of this machine. A plain program, standard library alone.

It reports how far it is to the FIFO that JOBLEDGER_CONTROL names, prints what it finds as lines of JSON, and leaves
`packages.csv` and `chart.svg` in JOBLEDGER_OUTPUT_DIR. It runs without Jobledger just as well.
"""

import csv
import inspect
import itertools
import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from types import CodeType

MOST_FILES = 60_000
SECONDS = 6.0
BARS = 15
ROW, LEFT, WIDTH = 30, 190, 960
COLUMNS = (
    "package",
    "files",
    "size_bytes",
    "read",
    "unreadable",
    "lines",
    "functions",
    "classes",
    "names",
    "commonest",
)


@dataclass
class Package:
    """The files of one package with their sizes, and what was counted in those that were read."""

    name: str
    files: list[tuple[int, Path]] = field(default_factory=list)
    read: int = 0
    unreadable: int = 0
    lines: int = 0
    functions: int = 0
    classes: int = 0
    identifiers: Counter[str] = field(default_factory=Counter)

    @property
    def size_bytes(self) -> int:
        """Size of all files, read or not."""
        return sum(size for size, _ in self.files)


class Control:
    """Reports progress, at most ten times a second; to nobody where no one listens."""

    def __init__(self, path: str | None) -> None:
        # Not to block for ever, should the reader be gone.
        self._file = os.open(path, os.O_WRONLY | os.O_NONBLOCK) if path else None
        self._next = 0.0

    def report(self, phase: str, percent: float, completed: int) -> None:
        """Says how far the job is; the end is never left unsaid. Of how many files is not known: time may end it."""
        if self._file is None or (percent < 100 and time.monotonic() < self._next):
            return
        self._next = time.monotonic() + 0.1
        message = {
            "type": "progress",
            "phase": phase,
            "percent": round(percent, 1),
            "items_completed": completed,
        }
        os.write(self._file, json.dumps(message).encode() + b"\n")


def log(level: str, message: str, **payload: object) -> None:
    """Prints a structured entry for the job's log."""
    print(json.dumps({"level": level, "message": message, "subsystem": "parser", "payload": payload}), flush=True)


def sources(roots: Iterable[str]) -> Iterator[tuple[str, int, Path]]:
    """All Python files below these directories, with their sizes and the packages that they belong to."""
    for root in map(Path, roots):
        for directory, subdirectories, names in os.walk(root):
            # site-packages lies within the standard library, and is a root itself.
            subdirectories[:] = sorted(set(subdirectories) - {"__pycache__", "site-packages"})
            for path in (Path(directory, name) for name in sorted(names) if name.endswith(".py")):
                if path.is_file():
                    yield path.relative_to(root).parts[0].removesuffix(".py"), path.stat().st_size, path


def by_package(found: Iterable[tuple[str, int, Path]]) -> dict[str, Package]:
    """The packages by name; of each, the smallest files first."""
    packages: dict[str, Package] = {}
    for name, size, path in found:
        packages.setdefault(name, Package(name)).files.append((size, path))
    for package in packages.values():
        package.files.sort()
    return packages


def in_turns(packages: Mapping[str, Package]) -> Iterator[tuple[Package, Path]]:
    """A file of each package in turn, so that all get their share before the time is over."""
    columns = ([(package, path) for size, path in package.files if size] for package in packages.values())
    for row in itertools.zip_longest(*columns):
        yield from (item for item in row if item is not None)


def read(path: Path, package: Package) -> None:
    """Compiles a file, without running it, and adds the names in it to what was counted in its package."""
    content = path.read_bytes()
    module = compile(content, str(path), "exec", dont_inherit=True)
    package.read += 1
    package.lines += content.count(b"\n")
    for code in code_objects(module):
        package.identifiers.update(code.co_names)
        package.identifiers.update(code.co_varnames)
        if code.co_flags & inspect.CO_NEWLOCALS:
            package.functions += 1
        else:
            package.classes += code is not module


def code_objects(code: CodeType) -> Iterator[CodeType]:
    """A module's code and that of all functions and classes in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from code_objects(constant)


def read_all(packages: Mapping[str, Package], control: Control) -> None:
    """Reads file after file until all are read or the time is over."""
    total = sum(len(package.files) for package in packages.values())
    started = time.monotonic()
    for count, (package, path) in enumerate(in_turns(packages)):
        spent = time.monotonic() - started
        if spent > SECONDS:
            log("info", f"the time is over after {count} of {total} files", files=count, of=total)
            return
        control.report("reading", 99 * max(count / total, spent / SECONDS), count)
        try:
            read(path, package)
        except (SyntaxError, ValueError, RecursionError, OSError) as error:
            package.unreadable += 1
            where = {"path": str(path), "package": package.name, "kind": type(error).__name__}
            log("warn", f"{path.name} does not parse: {error}", **where)


def write_table(packages: Sequence[Package], path: Path) -> None:
    """A line for each package."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for package in packages:
            commonest = package.identifiers.most_common(1)
            counted = (package.read, package.unreadable, package.lines, package.functions, package.classes)
            names = (len(package.identifiers), commonest[0][0] if commonest else "")
            table.writerow((package.name, len(package.files), package.size_bytes, *counted, *names))


def chart(packages: Sequence[Package]) -> str:
    """The largest packages as horizontal bars, in SVG."""
    height = 96 + ROW * len(packages)
    widest = max((package.size_bytes for package in packages), default=1) or 1
    bars = "\n".join(bar(index, package, widest) for index, package in enumerate(packages))
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="14">
  <defs>
    <linearGradient id="bar"><stop stop-color="#2f6fde"/><stop offset="1" stop-color="#38b6a8"/></linearGradient>
  </defs>
  <rect width="{WIDTH}" height="{height}" rx="12" fill="#fbfcfe"/>
  <text x="24" y="40" font-size="20" font-weight="600" fill="#1b2430">Python packages on this machine</text>
  <text x="24" y="62" fill="#66717f">size of their source</text>
{bars}
</svg>
"""


def bar(index: int, package: Package, widest: int) -> str:
    """One row of the chart."""
    top = 80 + ROW * index
    length = max(2.0, (WIDTH - LEFT - 210) * package.size_bytes / widest)
    figures = f"{package.size_bytes / 1e6:.2f} MB · {len(package.files):,} files"
    return (
        f'  <text x="{LEFT - 12}" y="{top + 16}" text-anchor="end" fill="#1b2430">{escape(package.name[:22])}</text>\n'
        f'  <rect x="{LEFT}" y="{top}" width="{length:.1f}" height="22" rx="4" fill="url(#bar)"/>\n'
        f'  <text x="{LEFT + length + 10:.1f}" y="{top + 16}" fill="#66717f">{escape(figures)}</text>'
    )


def main() -> None:
    """Finds, reads, writes."""
    warnings.simplefilter("ignore")  # those of the sources that are read are not about this job
    output = Path(os.environ.get("JOBLEDGER_OUTPUT_DIR", "."))
    control = Control(os.environ.get("JOBLEDGER_CONTROL"))
    packages = by_package(itertools.islice(sources(sys.path), MOST_FILES))
    log("info", f"found {sum(len(package.files) for package in packages.values())} files", packages=len(packages))
    read_all(packages, control)
    largest = sorted(packages.values(), key=lambda package: -package.size_bytes)
    write_table(largest, output / "packages.csv")
    (output / "chart.svg").write_text(chart(largest[:BARS]), "utf-8")
    count = sum(package.read for package in largest)
    control.report("done", 100, count)
    names: Counter[str] = Counter()
    for package in largest:
        names.update(package.identifiers)
    commonest = ", ".join(f"{name} ({count})" for name, count in names.most_common(5))
    print(f"read {count} files; the commonest names are {commonest}")


if __name__ == "__main__":
    main()
