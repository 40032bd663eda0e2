"""A servicer's side of a call that never leaves the process."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn

import grpc

from jobledger_server.api.types import Metadata

# Set by the gateway, which is part of this process and lets no header of these names pass: the address of its own
# client, and the certificate (DER) that the client showed.
PEER_KEY, CERTIFICATE_KEY = "x-jobledger-peer", "x-jobledger-certificate-bin"
OUR_KEYS = frozenset({PEER_KEY, CERTIFICATE_KEY})


class InProcessContext:
    """What a servicer and an interceptor use of a `grpc.aio.ServicerContext`."""

    takes_bursts = True
    takes_json = True
    takes_bodies = True
    # Takes a list of responses at once, past the queue, or says that it can't: set by a reader that is able to.
    push: Callable[[list[Any]], bool] | None = None
    # Takes a response, or a list of them; of calls that have more than one.
    deliver: Callable[[Any], Awaitable[None]]

    def __init__(self, metadata: Metadata, timeout: float | None) -> None:
        ours, others = dict[str, str | bytes](), list[tuple[str, str | bytes]]()
        for key, value in metadata:
            if key in OUR_KEYS:
                ours.setdefault(key, value)
            else:
                others.append((key, value))
        self._metadata = tuple(others)
        self._certificate = ours.get(CERTIFICATE_KEY)
        self._peer = str(ours.get(PEER_KEY, "inprocess"))
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self.initial: Metadata | None = None
        self._accepted: asyncio.Future[None] | None = None
        self.status_code = grpc.StatusCode.OK
        self.status_details = ""
        self.trailing: Metadata = ()

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        self.status_code, self.status_details, self.trailing = code, details, tuple(trailing_metadata)
        raise grpc.aio.AbortError(details)

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata)

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        if self.initial is None:
            self.initial = tuple(initial_metadata)
            if self._accepted is not None:
                self._accepted.set_result(None)

    async def initial_metadata(self) -> Metadata:
        """What was sent as such, once that is."""
        while self.initial is None:
            if self._accepted is None:
                self._accepted = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._accepted)
        return self.initial

    async def write(self, message: Any) -> None:
        """Takes a response, or a list of those that are ready together."""
        if self.initial is None:
            await self.send_initial_metadata(())
        await self.deliver(message)

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        self.trailing = tuple(trailing_metadata)

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self.status_code = code

    def set_details(self, details: str) -> None:
        self.status_details = details

    def code(self) -> grpc.StatusCode:
        return self.status_code

    def details(self) -> str:
        return self.status_details

    def trailing_metadata(self) -> Metadata:
        return self.trailing

    def peer(self) -> str:
        """`x-jobledger-peer` where the caller, who is part of this process, sent it."""
        return self._peer

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """The client's certificate, under the name that grpc has for it."""
        if not isinstance(self._certificate, bytes):
            return {}
        return {"x509_pem_cert": [ssl.DER_cert_to_PEM_cert(self._certificate).encode()]}

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
