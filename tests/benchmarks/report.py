"""Results on disk: JSON is what is kept, Markdown and chart are drawn from it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chart import Bar, draw
from benchmarks.framework import Benchmark, Row, figure

JSON_FILE, MARKDOWN_FILE, CHART_FILE = "results.json", "results.md", "results.svg"
Json = dict[str, Any]


def entry(
    benchmark: Benchmark, rows: Sequence[Row], *, machine: Mapping[str, Any], measured_at: str, failure: str = ""
) -> Json:
    """What is kept of one benchmark's run; `failure` says why there are no rows."""
    return {
        "goal": benchmark.goal,
        "definition": benchmark.definition,
        "measured_at": measured_at,
        "machine": dict(machine),
        "failure": failure or None,
        "rows": [_row(row) for row in rows],
    }


def _row(row: Row) -> Json:
    return {
        "name": row.name,
        "value": round(row.value, 6),
        "unit": row.unit,
        "goal": None if row.goal is None else row.goal.text(row.unit),
        "met": row.met,
        "share_of_goal": None if row.goal is None else round(row.goal.share(row.value), 4),
    }


def write(directory: Path, entries: Mapping[str, Json]) -> None:
    """Puts entries, by name of their benchmark, in place of the ones before; those of others stay."""
    directory.mkdir(parents=True, exist_ok=True)
    kept = directory / JSON_FILE
    known: dict[str, Json] = json.loads(kept.read_text()) if kept.exists() else {}
    known = dict(sorted({**known, **entries}.items()))
    kept.write_text(json.dumps(known, indent=2) + "\n")
    (directory / MARKDOWN_FILE).write_text(markdown(known))
    (directory / CHART_FILE).write_text(draw(_bars(known)))


def markdown(entries: Mapping[str, Json]) -> str:
    """The whole of the results, for people."""
    parts = ["# Results\n", f"![How much of what each goal allows is used]({CHART_FILE})\n"]
    for name, found in entries.items():
        parts.append(f"## {name}\n\nGoal: {found['goal']}.\n\n{found['definition']}\n")
        parts.append(f"Not measured: {found['failure']}\n" if found["failure"] else table(found["rows"]))
        parts.append(f"Measured {found['measured_at']}: {_machine(found['machine'])}.\n")
    return "\n".join(parts)


def table(rows: Sequence[Json]) -> str:
    """Rows as a Markdown table."""
    lines = ["| quantity | value | goal | met |", "|---|---:|---|---|"]
    for row in rows:
        met = {None: "", True: "yes", False: "**no**"}[row["met"]]
        lines.append(f"| {row['name']} | {figure(row['value'], row['unit'])} | {row['goal'] or ''} | {met} |")
    return "\n".join(lines) + "\n"


def _machine(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())


def _bars(entries: Mapping[str, Json]) -> list[Bar]:
    return [
        Bar(f"{name}: {row['name']}", row["share_of_goal"], figure(row["value"], row["unit"]))
        for name, found in entries.items()
        for row in found["rows"]
        if row["goal"] is not None
    ]
