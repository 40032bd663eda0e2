"""How many jobs of a queue, or with a label, may run at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobledger.v1.job_pb2 import Job

QUEUE, LABEL = "queue", "label"
# Why a job waits, where it is not for a group that is full. None of these tells of other jobs.
FOR_A_SLOT = "waiting for a slot"
FOR_ITS_BACKOFF = "waiting out its backoff"
FOR_ROOM = "waiting until the machine has room to start it"
FOR_ITS_START = "being started"
OF_ITS_OWN = frozenset({FOR_A_SLOT, FOR_ITS_BACKOFF, FOR_ROOM, FOR_ITS_START})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLimits:
    """Limits beside the one on all jobs. What has none here is not limited.

    A job counts in a *concurrency group* for its queue and for each of its labels that has a limit. The name of a group
    is what a person reads: `queue gpu`, `label tenant=acme`.

    Attributes:
        queues: most running jobs of a queue.
        labels: of `key`, most running jobs for each value of that label; of `key=value`, for that value, in place of
            the key's own limit.
    """

    queues: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)

    def groups_of(self, job: Job) -> tuple[str, ...]:
        """The groups in which the job counts: its queue's first, then its labels' by key."""
        queue = (f"{QUEUE} {job.spec.queue}",) if job.spec.queue in self.queues else ()
        pairs = (f"{key}={value}" for key, value in sorted(job.labels.items()))
        return (*queue, *(f"{LABEL} {pair}" for pair in pairs if self._most_with_label(pair) is not None))

    def most(self, group: str) -> int:
        """How many jobs of a group may run at a time.

        Raises:
            KeyError: there is no such limit.
        """
        kind, _, name = group.partition(" ")
        most = self.queues.get(name) if kind == QUEUE else self._most_with_label(name)
        if most is None:
            raise KeyError(group)
        return most

    def _most_with_label(self, pair: str) -> int | None:
        return self.labels.get(pair, self.labels.get(pair.partition("=")[0]))


NO_LIMITS = ConcurrencyLimits()
