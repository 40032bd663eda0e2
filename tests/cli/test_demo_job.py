"""The demonstration's job is a plain program that measures what it finds."""

import csv
import json
import os
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from jobledger.cli import demo_job


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library with two packages; a file of the second does not parse."""
    root = tmp_path / "library"
    for name, source in {
        "good/a.py": "class A:\n    def m(self):\n        return [x for x in self.items]\n",
        "good/empty.py": "",
        "good/site-packages/other.py": "hidden = 1\n",
        "b<&d.py": "print 'two'\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return root


def _measure(library: Path) -> dict[str, demo_job.Package]:
    packages = demo_job.by_package(demo_job.sources([str(library)]))
    demo_job.read_all(packages, demo_job.Control(None))
    return packages


def test_it_counts_what_is_in_each_package(library: Path) -> None:
    good = _measure(library)["good"]
    assert (len(good.files), good.read, good.lines) == (2, 1, 3)
    assert (good.functions, good.classes) == (2, 1)
    assert good.identifiers["self"] == 1


def test_what_does_not_parse_is_a_structured_warning(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _measure(library)["b<&d"].unreadable == 1
    entry = json.loads(capsys.readouterr().out)
    assert (entry["level"], entry["subsystem"], entry["payload"]["kind"]) == ("warn", "parser", "SyntaxError")


def test_the_chart_is_well_formed_whatever_packages_are_called(library: Path) -> None:
    root = ET.fromstring(demo_job.chart(list(_measure(library).values())))
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "b<&d" in texts


def test_the_table_has_a_line_for_each_package(library: Path, tmp_path: Path) -> None:
    demo_job.write_table(list(_measure(library).values()), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = {row["package"]: row for row in csv.DictReader(file)}
    assert (rows["good"]["functions"], rows["b<&d"]["unreadable"]) == ("2", "1")


def test_progress_goes_to_the_control_fifo_and_ends_at_100(tmp_path: Path) -> None:
    path = tmp_path / "control"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    control = demo_job.Control(str(path))
    for percent in (1.0, 2.0, 100.0):
        control.report("reading", percent, 1)
    lines = os.read(reader, 4096).splitlines()
    os.close(reader)
    told = [json.loads(line) for line in lines]
    assert [line["percent"] for line in told] == [1.0, 100.0], "the second came too soon after the first"
    assert not any("items_total" in line for line in told), "time may end it sooner"
