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
        """Events after a point, then live ones, for as long as one listens. Lives through restarts of the server.

        Stored events come in order and at least once: after a broken connection the stream goes on after the last one
        that arrived. `replay.complete` and `engine.heartbeat` come between them, without a sequence number.

        Args:
            resume_from: only events with a greater sequence number; 0 for all that are kept, None for new ones only.
            job_id, type: only events of these jobs, of these types, such as `job.state_changed`.

        Raises:
            OutOfRangeError: events after that point are no longer kept; `details["first_available_sequence"]`.
            ValidationError: the point lies in the future, or there is no such type.
        """
        if resume_from is None:
            # "From now" becomes a number, so that nothing is missed if the connection breaks before the first event.
            resume_from = (await self._transport.call(self._engine.GetStatus, GetStatusRequest())).last_sequence_number
        request = WatchEventsRequest(resume_from=resume_from, job_id=job_id, type=type, workspace_id=workspace_id)
        async for event in self._transport.follow(self._jobs.WatchEvents, request, _after_event):
            yield event


def _after_event(request: WatchEventsRequest, event: Event) -> None:
    if event.HasField("sequence_number"):
        request.resume_from = event.sequence_number
