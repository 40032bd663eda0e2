"""The directory that a job works in is the one that was looked at when it was let, whoever swaps it meanwhile."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from executors.harness import Lab
from jobledger_server.core.clock import SystemClock
from jobledger_server.core.ports import EndReason, Outcome
from jobledger_server.executors.local.executor import LocalExecutor
from jobledger_server.executors.local.isolation import BWRAP, LEVELS
from support.isolation import fake_bwrap, isolation_for


@pytest.fixture(params=LEVELS)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path.resolve(), level=request.param)
    yield lab
    lab.clear()


@pytest.mark.parametrize("link", ["work", "work/inner"])
async def test_a_working_directory_that_was_replaced_by_a_link_is_refused(
    lab: Lab, executor: LocalExecutor, link: str
) -> None:
    outside, work = lab.root / "outside", lab.root / "work" / "inner"
    (outside / "inner").mkdir(parents=True)
    work.mkdir(parents=True)
    (lab.root / link).rename(lab.root / "moved")
    (lab.root / link).symlink_to(outside)
    outcome = await executor.start(lab.shell("echo x > made", working_dir=work))
    assert isinstance(outcome, Outcome)
    assert outcome.reason is EndReason.SPAWN_FAILED
    assert f"Can't enter the working directory '{work}': {lab.root / link} was replaced by a link" in outcome.message
    assert not list(outside.rglob("made"))


@pytest.mark.parametrize(
    ("meanwhile", "complaint"),
    [
        ("mv work moved; ln -s outside work", "was replaced by a link"),
        ("mv work moved; mv outside work", "something else was put in its place while the job was started"),
        # A link was there for as long as it took to mount what it leads to.
        (
            'for it; do test "$it" = {work} && it={outside}; set -- "$@" "$it"; shift; done',
            "something else was put in its place while the job was started",
        ),
    ],
)
async def test_a_working_directory_that_is_swapped_while_bwrap_mounts_it_is_refused(
    tmp_path: Path, meanwhile: str, complaint: str
) -> None:
    """bwrap knows names alone, and follows links."""
    lab = Lab(tmp_path, level=BWRAP)
    isolation = isolation_for(BWRAP, tmp_path / "data")
    # Not in /tmp, where a job finds other things in any case.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        work, outside = Path(place, "work"), Path(place, "outside")
        for directory in (work, outside):
            directory.mkdir()
        meanwhile = meanwhile.format(work=work, outside=outside)
        fake_bwrap(tmp_path, f'cd {place}; {meanwhile}; exec {isolation.program} "$@"')
        async with LocalExecutor(
            data_dir=tmp_path / "data",
            listener=lab.recorder,
            clock=SystemClock(),
            isolation=isolation._replace(program=str(tmp_path / "bwrap")),
        ) as executor:
            outcome = await executor.start(lab.shell("echo x > made", working_dir=work))
        assert isinstance(outcome, Outcome)
        assert f"Can't enter the working directory '{work}'" in outcome.message
        assert complaint in outcome.message
        assert not list(Path(place).rglob("made"))
