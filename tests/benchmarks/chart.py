"""A bar for each goal: how much of what it allows is used. SVG, that shows on light and dark pages alike."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

LINE, LABELS, SCALE, ROOM = 22, 470, 150, 130
# Where bars are cut off, as a multiple of the goal.
MOST = 2.0
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#777}"
    ".met{fill:#2a9d6f}.missed{fill:#d1495b}line{stroke:#777;stroke-dasharray:4 3}"
)


class Bar(NamedTuple):
    """A label, the used share of what the goal allows, and the value as text."""

    label: str
    share: float
    value: str


def draw(bars: Sequence[Bar]) -> str:
    """The chart. Bars that end left of the line meet their goal."""
    width, height = LABELS + SCALE * MOST + ROOM, LINE * (len(bars) + 2)
    goal = LABELS + SCALE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" role="img">',
        f"<style>{STYLE}</style>",
        f'<text x="{goal}" y="{LINE - 6}" text-anchor="middle">goal</text>',
        *(line for place, bar in enumerate(bars, start=1) for line in _bar(bar, LINE * place)),
        f'<line x1="{goal}" x2="{goal}" y1="{LINE}" y2="{height - LINE}"/>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bar(bar: Bar, top: int) -> list[str]:
    length = max(1.0, SCALE * min(bar.share, MOST))
    kind = "met" if bar.share <= 1 else "missed"
    return [
        f'<text x="{LABELS - 8}" y="{top + 15}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{kind}" x="{LABELS}" y="{top + 3}" width="{length:.1f}" height="{LINE - 6}"/>',
        f'<text x="{LABELS + length + 6:.1f}" y="{top + 15}">{escape(bar.value)}</text>',
    ]
