"""What a benchmark is: a name, a goal, and a measurement that gives rows."""

import importlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# A trial does this share of the work.
TRIAL_SHARE = 20
FEWEST = 5


class NotMeasuredError(Exception):
    """A figure can't be had: what was to be measured did not happen. The message says what did."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound, in the unit of its row. The value may lie right on it."""

    bound: float
    at_least: bool = False

    def is_met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def share(self, value: float) -> float:
        """How much of what the goal allows is used: 1 is right at the bound, less is better.

        Where nothing is allowed, each unit counts as one bound more.
        """
        used, allowed = (self.bound, value) if self.at_least else (value, self.bound)
        return used / allowed if allowed else 1 + used

    def text(self, unit: str) -> str:
        return f"{'at least' if self.at_least else 'at most'} {figure(self.bound, unit)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured quantity; `goal` is None where it is told for comparison alone."""

    name: str
    value: float
    unit: str
    goal: Goal | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        return None if self.goal is None else self.goal.is_met(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one benchmark.

    Attributes:
        directory: its own, empty, and removed after it.
        trial: whether it is only to show that it works.
    """

    directory: Path
    trial: bool = False

    def scaled(self, full: int) -> int:
        """How much to do of something: all of it, or what a trial does."""
        return min(full, max(FEWEST, full // TRIAL_SHARE)) if self.trial else full


Measure = Callable[[Run], Awaitable[Sequence[Row]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A measurement. The docstring of `measure` defines every quantity in its rows."""

    name: str
    goal: str
    measure: Measure

    @property
    def definition(self) -> str:
        lines = (self.measure.__doc__ or "").strip().splitlines()
        return "\n".join(line.strip() for line in lines)


_registered: dict[str, Benchmark] = {}


def benchmark(name: str, *, goal: str) -> Callable[[Measure], Measure]:
    """Registers the function below it."""

    def register(measure: Measure) -> Measure:
        _registered[name] = Benchmark(name=name, goal=goal, measure=measure)
        return measure

    return register


def discover() -> Mapping[str, Benchmark]:
    """The benchmarks of every `bench_*.py` in this directory, by name."""
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        importlib.import_module(f"benchmarks.{path.stem}")
    return dict(_registered)


def figure(value: float, unit: str) -> str:
    """A figure for people: three digits that count, none of a whole number lost."""
    number = f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()
