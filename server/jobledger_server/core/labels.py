"""Labels as a filter writes them."""

from collections.abc import Iterable


def parse_labels(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(key, value) of each `key=value`; the first `=` divides them."""
    return tuple((key, value) for key, _, value in (text.partition("=") for text in texts))
