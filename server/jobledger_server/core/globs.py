"""Globs over paths with `/`: `*` and `?` stay within a part, `**` spans parts."""

import re
from collections import defaultdict
from functools import lru_cache


def matches(path: str, glob: str) -> bool:
    """Whether the glob names the path. A glob without `/` names files at the top only; `**/x` names them anywhere.

    The time is linear in the glob, whatever it says: globs come from callers, and a regular expression made of one may
    take for ever.
    """
    places = _places(path)
    end = 1 << len(path)
    slashes = places["/"]
    others = (end - 1) & ~slashes
    # Bit k: what was read of the glob so far can stand for the first k characters of the path.
    reached = 1
    for piece in _pieces(glob):
        if piece == "**/":
            begins = reached & others
            reached |= (slashes << 1) & -((begins & -begins) << 1)
        elif piece == "**":
            reached = (end << 1) - (reached & -reached)
        elif piece == "*":
            # The carry of the sum runs from each place that was reached to the end of its part.
            reached |= ((reached & others) + others) ^ others
        else:
            reached = (reached & (others if piece == "?" else places[piece])) << 1
        if not reached:
            return False
    return bool(reached & end)


def _places(path: str) -> defaultdict[str, int]:
    """For each character a number whose bit k is set where the path has it at k."""
    places: defaultdict[str, int] = defaultdict(int)
    for index, character in enumerate(path):
        places[character] |= 1 << index
    return places


@lru_cache(maxsize=1024)
def _pieces(glob: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\*\*/|\*\*|.", glob, re.DOTALL))
