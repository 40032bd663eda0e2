"""What a client would rather have (RFC 9110, 12.5.1)."""

import re
from functools import lru_cache

WEIGHT = re.compile(r"(0(\.[0-9]{0,3})?|1(\.0{0,3})?)")
# Headers that are taken apart once: clients choose them, and most send the same.
REMEMBERED = 256


@lru_cache(REMEMBERED)
def rank(accept: str, media_type: str) -> tuple[float, int]:
    """How much an Accept header wants a media type: by weight, then by how exactly it names it.

    The range that names the type most exactly says its weight, whatever others say; 0 is that of what is not wanted.
    """
    kind = media_type.partition("/")[0]
    exactness = {"*/*": 1, f"{kind}/*": 2, media_type: 3}
    found = {exactness.get(name, 0): weight for name, weight in map(_range, accept.lower().split(","))}
    best = max(found, default=0)
    return (found[best], best) if best and found[best] else (0.0, 0)


def _range(text: str) -> tuple[str, float]:
    """A media range, and its weight: 1 where it gives none that can be read."""
    name, *parameters = (part.strip() for part in text.split(";"))
    weights = (value.strip() for key, _, value in (it.partition("=") for it in parameters) if key.strip() == "q")
    weight = next(weights, "")
    return name, float(weight) if WEIGHT.fullmatch(weight) else 1.0
