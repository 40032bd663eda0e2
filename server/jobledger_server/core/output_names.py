"""Which names under `output/` no reader should be given."""

import re
from urllib.parse import unquote

MAX_PATH = 1024
# As much of a name as is told where it can't be one.
MOST_TOLD = 256
# As often as a name may be decoded on its way through other programs.
DECODED = 3
# What Windows opens for a name, whatever directory it is in and whatever comes after a dot.
DEVICE = re.compile(
    r"(CON|PRN|AUX|NUL|CLOCK\$|CONIN\$|CONOUT\$|(COM|LPT)[0-9\u00b9\u00b2\u00b3]) *(\..*)?", re.IGNORECASE
)


def reason_to_refuse_name(path: str) -> str:
    """Why a path is refused as an artifact's; empty where it may be one.

    Args:
        path: relative to `output/`, an escape with a backslash in place of each byte that is not UTF-8.
    """
    if len(path) > MAX_PATH:
        return f"its path is longer than {MAX_PATH} characters"
    if _deceives(path):
        return "its name has characters that no file system should see"
    if reason := _reason_of_another_system(path):
        return reason
    if "%" in path and _decoding_moves(path):
        return "its name, percent-decoded, would lead elsewhere"
    return ""


def reason_to_refuse_declared(path: str) -> str:
    """Why no artifact can be called what a job declared, whatever that is."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.startswith("/") or ".." in parts:
        return "declared, and its path leads out of output/, or names no file"
    return f"declared, and {reason_to_refuse_name(path) or 'there is no such file'}"


def reason_to_refuse_glob(glob: str) -> str:
    """Why no file under `output/` can be meant by a glob; empty where one can be."""
    parts = glob.split("/")
    if glob.startswith("/") or ".." in parts:
        return f"{glob!r} leads out of output/, where all artifacts are: say a path below it, such as 'reports/*.csv'"
    if "" in parts or "." in parts:
        return (
            f"{glob!r} names no file: leave out './', '//' and a '/' at the end; 'reports/**' is all below a directory"
        )
    return ""


def told(path: str) -> str:
    """Any text so that it can be shown: escapes in place of what can't be seen, its beginning where it is long."""
    shown = "".join(it if it.isprintable() else it.encode("unicode_escape").decode() for it in path[:MOST_TOLD])
    return shown if len(path) <= MOST_TOLD else f"{shown}..."


def _deceives(path: str) -> bool:
    return "\\" in path or not path.isprintable()


def _reason_of_another_system(path: str) -> str:
    """Why a path is another file, or none, where it is unpacked on Windows."""
    if ":" in path:
        return "its name has a colon, which on Windows leads to another drive or stream"
    for part in path.split("/"):
        if part.endswith((".", " ")) and part not in (".", ".."):
            return "its name has a dot or a space at the end of a part, which Windows drops"
        if DEVICE.fullmatch(part):
            return "its name is that of a device on Windows"
    return ""


def _decoding_moves(path: str) -> bool:
    """Whether someone who decodes it would find other directories in it than there are, or what can't be seen."""
    decoded = path
    for _ in range(DECODED):
        decoded = unquote(decoded)
        parts = decoded.split("/")
        if len(parts) != path.count("/") + 1 or ".." in parts or "." in parts or "\0" in decoded or "\\" in decoded:
            return True
        if _reason_of_another_system(decoded):
            return True
    return not decoded.isprintable()
