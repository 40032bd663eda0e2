"""What it costs to know who calls, whether they may, and whether what they ask is right."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from benchmarks.framework import Goal, Row, Run, benchmark
from benchmarks.measuring import median
from google.protobuf.message import Message
from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.job_pb2 import Job, JobSpec
from jobledger_server.access.admin import TokenAdmin
from jobledger_server.access.audit_file import AuditFile
from jobledger_server.access.cached_tokens import CachedTokens
from jobledger_server.access.live_calls import LiveCalls
from jobledger_server.access.rates import RequestRates
from jobledger_server.access.throttle import FailureThrottle
from jobledger_server.access.tokens import Authenticator
from jobledger_server.api.interceptors.access import Access
from jobledger_server.api.interceptors.auditing import Auditing, Refusals
from jobledger_server.api.interceptors.base import Chain, Interceptor
from jobledger_server.api.interceptors.decoding import Decoding
from jobledger_server.api.interceptors.errors import Errors
from jobledger_server.api.interceptors.limits import Limits
from jobledger_server.api.interceptors.tenure import Tenure
from jobledger_server.api.interceptors.validation import Validation
from jobledger_server.core.audit import take_pending
from jobledger_server.core.clock import SystemClock
from jobledger_server.core.pages import PageTokens
from jobledger_server.service.auditing import AuditLog
from jobledger_server.stores.sqlite import SqliteStore

CALLS, ROUNDS, MOST_MICROSECONDS = 2_000, 61, 40.0
PEER = "ipv4:127.0.0.1:50000"


class Caller:
    """What the interceptors ask of a call."""

    def __init__(self, token: str) -> None:
        self._metadata = (("user-agent", "grpc-python/1.80.0"), ("authorization", f"Bearer {token}"))

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def peer(self) -> str:
        return PEER


@benchmark("access", goal=f"authentication, policy, limits and validation together {MOST_MICROSECONDS:.0f} us a call")
async def access(run: Run) -> list[Row]:
    """CPU time of this process for a call through the interceptors of the server, less that of the bare handler.

    The handler does nothing; no socket is between. A token that is known, as of every call but a client's first.
    Medians of rounds, in each of which every kind of call is made in turn.

    - read: GetJob of a job of its own each time. again: the same ListJobs, which has a rule over the whole of it; its
      bytes were found good before.
    - write: CreateJob of a small spec. Its entry of the audit log is made, and not stored: that is the commit's time.
    """
    async with SqliteStore(run.directory / "jobledger.db") as store:
        chain, caller = await _guards(store, run.directory)
        calls = run.scaled(CALLS)
        reads = [pb.GetJobRequest(job_id=f"job_{number:026}") for number in range(calls)]
        writes = [_create(number) for number in range(calls)]
        kinds: Mapping[str, tuple[str, Sequence[Message]]] = {
            "read": ("GetJob", reads),
            "again": ("ListJobs", [pb.ListJobsRequest(limit=50)] * calls),
            "write": ("CreateJob", writes),
        }
        costs: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(ROUNDS):
            for name, (method, requests) in kinds.items():
                costs[name].append(await _cost(chain, caller, method, requests))
    goal = Goal(MOST_MICROSECONDS)
    return [Row(name=name, value=median(each), unit="us a call", goal=goal) for name, each in costs.items()]


async def _guards(store: SqliteStore, directory: Path) -> tuple[Interceptor, Caller]:
    clock, tokens = SystemClock(), CachedTokens(store)
    token = await TokenAdmin(tokens=tokens, clock=clock).create_first()
    audit = AuditLog(store=store, clock=clock, pages=PageTokens(bytes(32)), copy=AuditFile(directory / "audit"))
    known = Access(
        authenticator=Authenticator(tokens=tokens, clock=clock, throttle=FailureThrottle(clock=clock)),
        rates=RequestRates(clock=clock, rate=1_000_000_000, burst=1_000_000_000),
    )
    tenure = Tenure(live=LiveCalls(tokens=tokens, clock=clock, most_streams=100))
    limits = [Refusals(audit=audit), known, tenure, Limits()]
    return Chain([Errors(), *limits, Decoding(), Auditing(audit=audit), Validation()]), Caller(token)


def _create(number: int) -> pb.CreateJobRequest:
    spec = JobSpec(command=["python", "train.py", str(number)], env={"SEED": str(number)}, labels={"team": "red"})
    return pb.CreateJobRequest(spec=spec, idempotency_key=f"key-{number}")


async def _nothing(request: Any, context: Any) -> Job:
    take_pending()
    return Job()


async def _cost(chain: Interceptor, caller: Caller, method: str, requests: Sequence[Message]) -> float:
    bare: Any = grpc.unary_unary_rpc_method_handler(_nothing)
    guarded = chain.wrap(f"/jobledger.v1.JobService/{method}", bare)
    both = [await _micros(handler.unary_unary, caller, requests) for handler in (bare, guarded)]
    return both[1] - both[0]


async def _micros(call: Any, caller: Caller, requests: Sequence[Message]) -> float:
    began = time.process_time()
    for request in requests:
        await call(request, caller)
    return (time.process_time() - began) / len(requests) * 1_000_000
