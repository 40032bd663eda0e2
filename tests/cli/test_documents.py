"""Every `jobledger` line in an example of the documents is one that the program takes."""

import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import click
import pytest
from jobledger.cli import main

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "server" / "README.md", *sorted((ROOT / "server" / "docs").glob("*.md")))
ENDS = {"|", ">", "&&", ";", "&", "2>"}


def examples(page: Path) -> Iterator[str]:
    """The lines in fenced and indented blocks, those that go on in the next one as one."""
    fenced = False
    for line in page.read_text().replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()


def commands(page: Path) -> Iterator[list[str]]:
    """What follows `jobledger` in each example, up to what is the shell's."""
    for line in examples(page):
        in_shell = re.fullmatch(r"\w+=\$\((.*)\)", line)
        words = shlex.split(in_shell[1] if in_shell else line, comments=True) if "jobledger " in line else []
        if words and Path(words[0]).name == "jobledger":
            yield list(takewhile(lambda word: word not in ENDS, words[1:]))


def parse(command: click.Command, words: Sequence[str]) -> None:
    """As click does it, without a look at files and without a run.

    Raises:
        click.UsageError: it would not be taken.
    """
    if isinstance(command, main.OfferedVerb):
        command = command._load()
    context = click.Context(command, info_name=command.name, **command.context_settings)
    values, rest, order = command.make_parser(context).parse_args(list(words))
    given = {name: value for name, value in values.items() if isinstance(value, str | list | tuple)}
    for parameter in order:
        if parameter.name in given and not isinstance(parameter.type, click.Path):
            parameter.type_cast_value(context, given[parameter.name])
    missing = [parameter.name for parameter in command.params if parameter.required and not given.get(parameter.name)]
    if missing:
        raise click.UsageError(f"{missing} are missing")
    if isinstance(command, click.Group):
        _, verb, rest = command.resolve_command(context, rest)
        assert verb is not None
        parse(verb, rest)
    elif rest:
        raise click.UsageError(f"{rest} are too many")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_program_takes_every_line_of_the_page(page: Path) -> None:
    for words in commands(page):
        try:
            parse(main.cli, words)
        except click.UsageError as error:
            pytest.fail(f"jobledger {shlex.join(words)}: {error.message}")


def test_lines_are_found_and_wrong_ones_are_not_taken() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 25
    for wrong in ("--target jobs.example:50051 run --wait -- x", "run --memory much -- x", "token create", "ls a"):
        with pytest.raises(click.UsageError):
            parse(main.cli, shlex.split(wrong))
