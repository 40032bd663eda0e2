"""Watching what happens."""

from collections.abc import AsyncGenerator, Sequence

from jobledger.calls.base import Calls
from jobledger.v1.engine_service_pb2 import GetStatusRequest
from jobledger.v1.events_pb2 import Event
from jobledger.v1.job_service_pb2 import WatchEventsRequest


class EventCalls(Calls):
    """Verbs on events."""

    async def events(
        self,
        *,
        resume_from: int | None = None,
        job_id: Sequence[str] = (),
        type: Sequence[str] = (),  # noqa: A002
        workspace_id: str | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Events after a point, then live ones, for as long as one listens.

        When the connection breaks or the server restarts, the stream is opened anew, for up to `reconnect_for`. It goes
        on after the last event or bookmark that arrived: stored events come in order and at least once.

        Stored events have a `sequence_number`: `engine.heartbeat`, which comes every 3 s, is one of them. Two that
        belong to the connection have none. `replay.complete` comes where the past ends, after each reconnection too.
        `stream.bookmark` comes with each heartbeat that a filter holds back. Both have a `last_sequence`, in
        `replay_complete` or `bookmark`: to resume later, in another process, pass it or the last `sequence_number`,
        whichever came last, as `resume_from`.

        Args:
            resume_from: only events with a greater sequence number; 0 for all from the very first, which fails where
                some are no longer kept; None for those that are stored from now on.
            job_id, type: only events of any of these jobs, of any of these types, such as `job.state_changed`.
            workspace_id: only events of jobs of this workspace. Filters must all hold.

        Raises:
            OutOfRangeError: events after that point are no longer kept, at the start or because the reader came too far
                behind; `details["first_available_sequence"]` is the first that is.
            ValidationError: the point lies in the future, or there is no such type.
            UnavailableError: the server was out of reach for longer than `reconnect_for`.
        """
        if resume_from is None:
            # "From now" becomes a number, so that nothing is missed if the connection breaks before the first event.
            resume_from = (await self._transport.call(self._engine.GetStatus, GetStatusRequest())).last_sequence_number
        request = WatchEventsRequest(resume_from=resume_from, job_id=job_id, type=type, workspace_id=workspace_id)
        async for event in self._transport.follow(self._jobs.WatchEvents, request, _after_event, endless=True):
            yield event


def _after_event(request: WatchEventsRequest, event: Event) -> None:
    """The point is never moved back: a server of an older version tells no `last_sequence`."""
    marked = max(event.sequence_number, event.bookmark.last_sequence, event.replay_complete.last_sequence)
    request.resume_from = max(request.resume_from, marked)
