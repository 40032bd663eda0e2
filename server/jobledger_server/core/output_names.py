"""Which names under `output/` no reader should be given."""

from urllib.parse import unquote

MAX_PATH = 1024
# As often as a name may be decoded on its way through other programs.
DECODED = 3


def reason_to_refuse_name(path: str) -> str:
    """Why a path is refused as an artifact's; empty where it may be one.

    Args:
        path: relative to `output/`, an escape with a backslash in place of each byte that is not UTF-8.
    """
    if len(path) > MAX_PATH:
        return f"its path is longer than {MAX_PATH} characters"
    if _deceives(path):
        return "its name has characters that no file system should see"
    if "%" in path and _decoding_moves(path):
        return "its name, percent-decoded, would lead elsewhere"
    return ""


def _deceives(path: str) -> bool:
    return "\\" in path or not path.isprintable()


def _decoding_moves(path: str) -> bool:
    """Whether someone who decodes it would find other directories in it than there are, or what can't be seen."""
    decoded = path
    for _ in range(DECODED):
        decoded = unquote(decoded)
        parts = decoded.split("/")
        if len(parts) != path.count("/") + 1 or ".." in parts or "." in parts or "\0" in decoded or "\\" in decoded:
            return True
    return not decoded.isprintable()
