"""Who may see what a process has in memory, secrets among it, and who may leave a core file: a copy of that.

The server, the nursery and the shims hold values of secrets and leave none; nor does a job that was given some. Other
jobs get what they would have had without that. Standard library only.
"""

import resource

from jobledger_server.executors.local.process_tree import PR_SET_DUMPABLE, prctl

_soft, _ = resource.getrlimit(resource.RLIMIT_CORE)


def forbid() -> None:
    """From now on this process leaves none, nor does what it starts unless that is told otherwise."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, _hard()))


def shut_out() -> None:
    """From now on no other process of this user, a job say, looks into this one: by ptrace, or by its files in /proc.

    That holds on Linux, and not for those that may trace any process, as root. What this one starts is open again from
    its exec on: supervisors and the nursery are known by their open files. Nor is there a core for a program that
    `kernel.core_pattern` names, which the limit does not keep from it.

    Raises:
        OSError: the kernel refused.
    """
    prctl(PR_SET_DUMPABLE, 0)


def limit_of_job(*, has_secrets: bool) -> tuple[int, int]:
    """Soft and hard limit of a job's core files, bytes."""
    return (0, 0) if has_secrets else (_soft, _hard())


def _hard() -> int:
    return resource.getrlimit(resource.RLIMIT_CORE)[1]
