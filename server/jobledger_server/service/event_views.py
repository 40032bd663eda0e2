"""What a watcher is given of each event: those that its filters admit, as far as it may see them."""

from collections.abc import Callable
from typing import TypeAlias

from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_service_pb2 import WatchEventsRequest

from jobledger_server.core.concurrency import FOR_A_SLOT, OF_ITS_OWN
from jobledger_server.core.policy import Principal

View: TypeAlias = Callable[[Event], Event | None]
MOST_KEPT = 256


class EventViews:
    """Makes the views of watchers.

    What those who are bound to workspaces are not told is taken out once for all of them: they are given the very same
    messages, as the others are.
    """

    def __init__(self) -> None:
        self._without_counts: dict[int, Event] = {}

    def of(self, request: WatchEventsRequest, principal: Principal) -> View | None:
        """The event as a watcher is given it, or None; None where it is given all as they are."""
        admits = _filter(request)
        if principal.workspaces is None:
            return None if admits is None else lambda event: event if admits(event) else None

        def seen(event: Event) -> Event | None:
            if not _may_see(principal, event) or not (admits is None or admits(event)):
                return None
            return self._narrowed(event)

        return seen

    def _narrowed(self, event: Event) -> Event:
        """Without what counts the jobs of all workspaces."""
        if not (event.HasField("heartbeat") or event.HasField("queue_heartbeat")):
            return event
        narrowed = self._without_counts.get(event.sequence_number)
        if narrowed is None:
            narrowed = _without_counts(event)
            if len(self._without_counts) >= MOST_KEPT:
                self._without_counts.clear()
            self._without_counts[event.sequence_number] = narrowed
        return narrowed


def _without_counts(event: Event) -> Event:
    narrowed = Event()
    narrowed.CopyFrom(event)
    if event.HasField("heartbeat"):
        narrowed.heartbeat.ClearField("active_jobs")
        narrowed.heartbeat.ClearField("queue_depth")
    else:
        narrowed.queue_heartbeat.ClearField("queue_position")
        if event.queue_heartbeat.reason not in OF_ITS_OWN:
            # A group that is full has jobs of others in it, and says how many.
            narrowed.queue_heartbeat.reason = FOR_A_SLOT
    return narrowed


def _may_see(principal: Principal, event: Event) -> bool:
    """Whether an event is of the engine as a whole, of the watcher's own token, or of a job in its workspaces."""
    if event.HasField("token_rotated"):
        return event.token_rotated.token_id == principal.token_id
    return not event.HasField("job") or principal.sees(event.job.workspace_id)


def _filter(request: WatchEventsRequest) -> Callable[[Event], bool] | None:
    jobs, types = frozenset(request.job_id), frozenset(request.type)
    workspace = request.workspace_id if request.HasField("workspace_id") else None
    if not jobs and not types and workspace is None:
        return None

    def admits(event: Event) -> bool:
        job = event.job
        return (
            (not jobs or job.job_id in jobs)
            and (not types or event.event_type in types)
            and (workspace is None or job.workspace_id == workspace)
        )

    return admits
