"""Prometheus text: the engine's gauges, and what the gateway itself counts."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import grpc
from aiohttp import web
from jobledger.v1 import engine_service_pb2
from jobledger.v1.engine_service_pb2 import EngineStatus, GetStatusRequest, WhoAmIRequest

from jobledger_gateway.calls import Rpc
from jobledger_gateway.exchange import Exchange

METHODS = engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"].methods_by_name
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# Gauges of the engine: name, field of EngineStatus, help.
GAUGES = (
    ("jobledger_active_jobs", "active_jobs", "Jobs that are running or cancelling."),
    ("jobledger_queue_depth", "queue_depth", "Jobs that wait."),
    ("jobledger_max_running", "max_running", "Most jobs that run at a time."),
    ("jobledger_open_streams", "open_streams", "Streams that are open."),
    ("jobledger_disk_free_bytes", "free_bytes", "What the disk of the data directory has left."),
    ("jobledger_waiting_ends", "waiting_ends", "Ends of jobs that could not be stored yet."),
    ("jobledger_first_sequence_number", "first_sequence_number", "Number of the first event that is kept; 0 for none."),
    ("jobledger_last_sequence_number", "last_sequence_number", "Number of the last stored event."),
)


@dataclass(slots=True)
class Counted:
    """A request: the template of its route once that is found, its status once it is answered."""

    route: str = ""
    status: int = 499


class Counters:
    """What the gateway counts about the requests that it answers."""

    def __init__(self) -> None:
        self._answered: Counter[tuple[str, str, int]] = Counter()
        self._open = 0

    def begin(self) -> Counted:
        """Counts a request that has arrived, until it is told to `end`."""
        self._open += 1
        return Counted()

    def end(self, method: str, counted: Counted) -> None:
        """Counts it as answered. Unknown methods share one name: clients choose them."""
        self._open -= 1
        self._answered[method if method in KNOWN_METHODS else "other", counted.route, counted.status] += 1

    def lines(self) -> Iterator[str]:
        """The counters as Prometheus text."""
        yield from _head("jobledger_gateway_open_requests", "gauge", "Requests that are being answered.")
        yield f"jobledger_gateway_open_requests {self._open}"
        yield from _head("jobledger_gateway_requests_total", "counter", "Requests that were answered.")
        for (method, route, status), count in sorted(self._answered.items()):
            labels = _labels({"method": method, "route": route, "status": str(status)})
            yield f"jobledger_gateway_requests_total{labels} {count}"


class Metrics:
    """`GET /metrics`. Without an engine, and where that is allowed without a token, it tells of the gateway alone.

    What everybody asks of the gateway is not told to a token that is bound to workspaces, unless all are told it.
    """

    def __init__(self, channel: grpc.aio.Channel | None, counters: Counters, *, public: bool) -> None:
        """`channel` leads to the engine, where there is one."""
        self._status = None if channel is None else Rpc(channel, METHODS["GetStatus"])
        self._whoami = None if channel is None or public else Rpc(channel, METHODS["WhoAmI"])
        self._counters = counters
        self._public = public

    async def respond(self, exchange: Exchange) -> web.StreamResponse:
        """The page."""
        lines: list[str] = []
        if self._status is not None and (not self._public or "Authorization" in exchange.request.headers):
            reply = await self._status(GetStatusRequest(), metadata=exchange.metadata, deadline=exchange.deadline)
            lines += _engine(reply.message)
        if not await self._is_bound(exchange):
            lines += self._counters.lines()
        return web.Response(text="\n".join(lines) + "\n", headers={"Content-Type": CONTENT_TYPE})

    async def _is_bound(self, exchange: Exchange) -> bool:
        if self._whoami is None:
            return False
        reply = await self._whoami(WhoAmIRequest(), metadata=exchange.metadata, deadline=exchange.deadline)
        return bool(reply.message.workspaces)


def _engine(status: EngineStatus) -> Iterable[str]:
    yield from _head("jobledger_jobs", "gauge", "Jobs in each state.")
    for state, count in sorted(status.jobs_by_state.items()):
        yield f"jobledger_jobs{_labels({'state': state})} {count}"
    yield from _head("jobledger_storage_bytes", "gauge", "What the data directory holds.")
    for name, size in sorted(status.storage_bytes.items()):
        yield f"jobledger_storage_bytes{_labels({'class': name})} {size}"
    yield from _head("jobledger_collected_total", "counter", "What retention has removed.")
    for name, count in sorted(status.collected.items()):
        yield f"jobledger_collected_total{_labels({'class': name})} {count}"
    if status.HasField("swept_at"):
        yield from _head("jobledger_swept_seconds", "gauge", "When the last sweep measured what there is (Unix time).")
        yield f"jobledger_swept_seconds {status.swept_at.seconds}"
    yield from _head("jobledger_artifacts_quarantined_total", "counter", "Artifacts whose bytes were found damaged.")
    yield f"jobledger_artifacts_quarantined_total {status.artifacts_quarantined}"
    yield from _head("jobledger_archive_damaged", "gauge", "1 while the archive of receipts is known to be damaged.")
    yield f"jobledger_archive_damaged {int(status.HasField('archive_damage'))}"
    if status.HasField("archive_checked_at"):
        yield from _head("jobledger_archive_checked_seconds", "gauge", "When the archive was last read (Unix time).")
        yield f"jobledger_archive_checked_seconds {status.archive_checked_at.seconds}"
    for name, field, text in GAUGES:
        yield from _head(name, "gauge", text)
        yield f"{name} {getattr(status, field)}"
    yield from _head("jobledger_uptime_seconds", "gauge", "Time since the engine started.")
    yield f"jobledger_uptime_seconds {status.uptime_ms / 1000}"
    yield from _head("jobledger_healthy", "gauge", "1 while the engine's health is ok.")
    yield f"jobledger_healthy {int(status.health == 'ok')}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _labels(labels: Mapping[str, str]) -> str:
    escaped = (
        (name, value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")) for name, value in labels.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
