"""`python -m benchmarks [NAME ...]`: measures, prints, and keeps the results.

Exit code 0: everything was measured, whatever the figures are. 1: something could not be measured. 2: usage.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.framework import Benchmark, Row, Run, discover
from benchmarks.machine import facts
from benchmarks.report import Json, entry, table, write

RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    known = discover()
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure Jobledger on this machine.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks; default: all")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--trial", action="store_true", help="a twentieth of the work, nothing kept: does it run?")
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory for the results")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"there is no benchmark {', '.join(unknown)}: choose from {', '.join(known)}")
    if options.list:
        print("\n".join(f"{name}: {it.goal}" for name, it in known.items()))
        return 0
    # As Ctrl-C does: servers and jobs end before this does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    complete = True
    for name in options.names or known:
        found = measured(known[name], trial=options.trial)
        complete &= found["failure"] is None
        if not options.trial:
            # After each, so that what is measured is kept whatever comes.
            write(options.results, {name: found})
    return 0 if complete else 1


def measured(benchmark: Benchmark, *, trial: bool) -> Json:
    """Runs one benchmark in a directory of its own, and tells of it."""
    print(f"\n{benchmark.name}: {benchmark.goal}", flush=True)
    rows: Sequence[Row] = ()
    failure = ""
    with tempfile.TemporaryDirectory(prefix="jobledger-bench-") as directory:
        machine = facts(Path(directory))
        try:
            rows = asyncio.run(_rows(benchmark, Run(directory=Path(directory), trial=trial)))
        except Exception as error:  # noqa: BLE001 - a benchmark that breaks must not keep the others from being measured
            traceback.print_exc()
            _tell_servers(Path(directory))
            failure = _in_a_line(error)
    measured_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    found = entry(benchmark, rows, machine=machine, measured_at=measured_at, failure=failure)
    print(f"not measured: {failure}" if failure else table(found["rows"]), flush=True)
    return found


def _in_a_line(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def _tell_servers(directory: Path) -> None:
    """What the servers had to say in the end."""
    for output in directory.glob("*.output"):
        print(f"{output.name}:\n{output.read_text()[-2000:]}", file=sys.stderr)


async def _rows(benchmark: Benchmark, run: Run) -> Sequence[Row]:
    return await benchmark.measure(run)


if __name__ == "__main__":
    sys.exit(main())
