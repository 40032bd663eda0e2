"""How many files processes may have open. Standard library only.

The server takes all that it may: each stream is one. Its jobs get what they would have had without that, since programs
that use select() break with more than 1,024, which is why systems give no more unasked.
"""

import contextlib
import resource

_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)


def raise_limit() -> None:
    """Lets this process have as many as its hard limit says."""
    # macOS takes no soft limit that is beyond another one of the kernel's, and does not say which.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))


def original() -> int:
    """The limit that this process was started with."""
    return _soft


def lower_limit(soft: int) -> None:
    """Gives this process, and what it starts, a limit that an ancestor had."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
