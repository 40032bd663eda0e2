"""Who may leave a core file: a copy of all that a process has in memory, secrets among it. Standard library only.

The server, the nursery and the shims hold values of secrets and leave none; nor does a job that was given some. Other
jobs get what they would have had without that.
"""

import resource

_soft, _ = resource.getrlimit(resource.RLIMIT_CORE)


def forbid() -> None:
    """From now on this process leaves none, nor does what it starts unless that is told otherwise."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, _hard()))


def limit_of_job(*, has_secrets: bool) -> tuple[int, int]:
    """Soft and hard limit of a job's core files, bytes."""
    return (0, 0) if has_secrets else (_soft, _hard())


def _hard() -> int:
    return resource.getrlimit(resource.RLIMIT_CORE)[1]
