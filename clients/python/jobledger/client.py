"""The client for asyncio. `sync_client.py` is the same for everyone else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from jobledger.calls.artifacts import ArtifactCalls
from jobledger.calls.channel import open_channel
from jobledger.calls.engine import EngineCalls
from jobledger.calls.events import EventCalls
from jobledger.calls.jobs import JobCalls
from jobledger.calls.logs import LogCalls
from jobledger.calls.receipts import ReceiptCalls
from jobledger.calls.transport import Transport
from jobledger.endpoint import resolve_endpoint


class Client(JobCalls, LogCalls, ArtifactCalls, ReceiptCalls, EventCalls, EngineCalls):
    """A connection to a server.

    Every verb can raise `UnavailableError`, `AuthenticationError`, `PermissionDeniedError`, `RateLimitedError` and
    `DeadlineError` beside what it names itself; all of them are `JobledgerError`.

    Example:
        async with Client.connect() as client:
            job = await client.submit(["python", "train.py"], labels={"team": "vision"})
            async for entry in client.tail_logs(job.job_id):
                print(entry.message)
            job = await client.wait(job.job_id)
    """

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        target: str | None = None,
        *,
        token: str | None = None,
        data_dir: str | Path | None = None,
        tls: bool = False,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        insecure: bool = False,
        timeout: float = 30.0,  # noqa: ASYNC109 - default deadline of the calls to come
        retry_for: float = 5.0,
        reconnect_for: float = 60.0,
    ) -> AsyncIterator["Client"]:
        """Connects to a server, found as `resolve_endpoint` says, and closes the connection at the end.

        Args:
            target: gRPC target, such as `127.0.0.1:50051` or `unix:/path`.
            token: what lets the caller in.
            data_dir: directory of a server on this machine.
            tls: encrypt, and trust the system's certificate authorities; `ca_file`: trust those in this PEM file.
                A server on this machine is trusted by the certificate that it names itself, without either.
            cert_file, key_file: PEM files of a certificate to show to the server, and of its key.
            insecure: send the token in the clear to another machine.
            timeout: deadline of a call, seconds.
            retry_for: how long a call is repeated while the server can't be reached, seconds.
            reconnect_for: the same for a stream that had begun, and for `wait`.

        Raises:
            SetupError: no server or token was found, or the connection would not be safe.
        """
        endpoint = resolve_endpoint(
            target, token=token, data_dir=data_dir, ca_file=ca_file, cert_file=cert_file, key_file=key_file
        )
        async with await open_channel(endpoint, tls=tls, insecure=insecure) as channel:
            yield cls(
                Transport(
                    channel=channel,
                    endpoint=endpoint,
                    timeout=timeout,
                    retry_for=retry_for,
                    reconnect_for=reconnect_for,
                )
            )
