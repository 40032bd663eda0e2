"""How a process of our own is started beside the server. Standard library only."""

import os
import sys
from pathlib import Path

import jobledger_server

# Isolated, without site-packages, UTF-8 whatever the locale: the same wherever the server was started.
INTERPRETER = (sys.executable, "-I", "-S", "-X", "utf8")
BOOTSTRAP = "import sys; sys.path.append(sys.argv[1]); from {} import main; main(*sys.argv[2:])"
# What an interpreter may need to load. Nothing else of the server's environment is a job's business.
KEPT_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
PACKAGE_ROOT = Path(jobledger_server.__file__).parents[1]
# What such a process reads before it can do anything: its virtual environment, the standard library, our code.
PLACES = (str(Path(sys.executable).parents[1]), sys.base_prefix, str(PACKAGE_ROOT))


def command_line(module: str, *arguments: str) -> list[str]:
    """The command line of a process that calls `main` of one of our modules with these arguments."""
    return [*INTERPRETER, "-c", BOOTSTRAP.format(module), str(PACKAGE_ROOT), *arguments]


def environment() -> dict[str, str]:
    """What such a process gets of this one's environment."""
    return {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
