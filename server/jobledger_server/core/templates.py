"""Command lines with places to fill in: what stands in a place never becomes another argument, nor a shell's words."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobledger_server.core.errors import invalid
from jobledger_server.core.runners import VALUE, closed_words

# `{{` and `}}` stand for the braces themselves.
TOKEN = re.compile(r"\{\{|\}\}|\{(?P<place>[^{}]*)\}|(?P<stray>[{}])")
PLACE = re.compile(r"config((?:\.[A-Za-z_][A-Za-z0-9_-]*)+)")
Config = Mapping[str, Any]


class TemplateError(ValueError):
    """An element of a template that can't be; the message says which, and what it may be."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value of `config` goes.

    Attributes:
        path: names of the members that lead to it.
    """

    path: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(("config", *self.path))


Part = str | Place


@dataclass(frozen=True, slots=True)
class Template:
    """An argv. Filling it in changes neither the number of its elements nor their order.

    Attributes:
        source: the elements as they were declared.
        elements: the same, each as texts and places in a row.
        dashes: places whose values may make an option of an element that begins with them.
    """

    source: tuple[str, ...]
    elements: tuple[tuple[Part, ...], ...]
    dashes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, source: Sequence[str], dashes: frozenset[str] = frozenset()) -> "Template":
        """Raises TemplateError for what is no template, or would let a value choose or be a program."""
        elements = tuple(tuple(_parts(element, index)) for index, element in enumerate(source))
        _check_program(elements)
        _check_arguments(source, elements)
        return cls(tuple(source), elements, dashes)

    @property
    def places(self) -> frozenset[Place]:
        return frozenset(part for element in self.elements for part in element if isinstance(part, Place))

    def filled(self, config: Config) -> list[str]:
        """The argv, with the values as they are.

        Raises:
            ServiceError: VALIDATION where a value is missing or no text, number or boolean, or where it would begin an
                element with `-`, as options do.
        """
        return [self._element(parts, config) for parts in self.elements]

    def _element(self, parts: Sequence[Part], config: Config) -> str:
        texts = [part if isinstance(part, str) else _value(part, config) for part in parts]
        first = next((part for part, text in zip(parts, texts, strict=True) if text), "")
        element = "".join(texts)
        if isinstance(first, Place) and element.startswith("-") and str(first) not in self.dashes:
            raise invalid(f"spec.{first}", "must not begin with '-': the program would take it for an option")
        return element


def _parts(element: str, index: int) -> Iterator[Part]:
    end = 0
    for found in TOKEN.finditer(element):
        if found.start() > end:
            yield element[end : found.start()]
        end = found.end()
        if found[0] in ("{{", "}}"):
            yield found[0][0]
            continue
        place = PLACE.fullmatch(found["place"] or "")
        if place is None:
            raise TemplateError(
                f"command[{index}]: {found[0]!r} is no placeholder such as {{config.model}}; "
                "write {{ or }} for a brace itself"
            )
        yield Place(tuple(place[1].split(".")[1:]))
    if end < len(element):
        yield element[end:]


def _check_program(elements: Sequence[Sequence[Part]]) -> None:
    if not elements or not elements[0]:
        raise TemplateError('command: must name a program, such as ["python3", "/srv/train.py", "{config.model}"]')
    if any(isinstance(part, Place) for part in elements[0]):
        raise TemplateError("command[0]: must not have a placeholder: whoever fills it in could run anything")
    program = "".join(map(str, elements[0]))
    if "/" in program and not program.startswith("/"):
        raise TemplateError(f"command[0]: {program!r} must be an absolute path, or a name that is found on PATH")


def _check_arguments(source: Sequence[str], elements: Sequence[Sequence[Part]]) -> None:
    """What a program is to run is not for a value to choose, nor to be a part of."""
    words = ["".join(part if isinstance(part, str) else VALUE for part in element) for element in elements]
    for program, index in closed_words(words):
        if _has_place(elements[index]):
            raise TemplateError(
                f"command[{index}]: must not have a placeholder: it can't be told that {source[program]} does not run "
                "it, and the value would be a program. Hand it over as an argument of a script, or of a text: "
                '["sh", "-c", "run \\"$1\\"", "sh", "{config.model}"]'
            )


def _has_place(element: Sequence[Part]) -> bool:
    return any(isinstance(part, Place) for part in element)


def _value(place: Place, config: Config) -> str:
    value: Any = config
    for name in place.path:
        value = value.get(name) if isinstance(value, Mapping) else None
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return json.dumps(value)
        case None:
            raise invalid(f"spec.{place}", "is missing, and the command of this job type needs it")
        case _:
            raise invalid(f"spec.{place}", "must be a text, a number, true or false to stand in a command")
