"""One made-up service behind both doors with TLS, and clients that show a certificate, or don't."""

import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import aiohttp
import grpc
from api.doors import Servicer, register
from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_gateway.app import GatewayOptions, build_app, serve
from jobledger_server.access.server_tls import ServerTls
from jobledger_server.access.tls_files import TlsFiles, load
from jobledger_server.api.grpc_server import OPTIONS
from jobledger_server.api.inprocess import InProcessChannel
from jobledger_server.api.tls import server_credentials
from jobledger_server.api.types import ServerInterceptor
from support.certificates import Authority, Certificate
from support.doors import refused

REFUSED = "the handshake"
Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, kw_only=True)
class TlsDoors:
    """Both doors, with the files that they follow."""

    files: TlsFiles
    tls: ServerTls
    grpc_port: int
    http_port: int

    def renew(self, server: Certificate, authority: Authority | None = None) -> None:
        """New files, which count at once."""
        server.write(self.files.key.parent, "server")
        if authority is not None:
            authority.write(self.files.key.parent, "ca")
        self.tls.take(load(self.files))

    async def ask(
        self, door: str, trusted: Certificate, *, shown: Certificate | None = None, headers: Metadata = ()
    ) -> str:
        """Whom the server takes the caller for; else its `E_...`, or REFUSED where there is no connection."""
        ask = self._ask_grpc if door == "grpc" else self._ask_rest
        return await ask(trusted, shown, headers)

    async def _ask_grpc(self, trusted: Certificate, shown: Certificate | None, headers: Metadata) -> str:
        async with self.channel(trusted, shown) as channel:
            try:
                job = await JobServiceStub(channel).GetJob(pb.GetJobRequest(job_id="principal"), metadata=headers)
            except grpc.aio.AioRpcError as error:
                return REFUSED if error.code() is grpc.StatusCode.UNAVAILABLE else refused(error).error_code
            return str(job.created_by)

    async def _ask_rest(self, trusted: Certificate, shown: Certificate | None, headers: Metadata) -> str:
        named = {name: value if isinstance(value, str) else value.hex() for name, value in headers}
        try:
            async with (
                self.session(trusted, shown) as session,
                session.get("/v1/jobs/principal", headers=named) as told,
            ):
                body = await told.json()
        except (aiohttp.ClientError, OSError):
            return REFUSED
        return str(body.get("error_code") or body["created_by"])

    def channel(self, trusted: Certificate, shown: Certificate | None) -> grpc.aio.Channel:
        key, chain = (None, None) if shown is None else (shown.key_pem, shown.pem)
        credentials = grpc.ssl_channel_credentials(trusted.pem, key, chain)
        return grpc.aio.secure_channel(f"127.0.0.1:{self.grpc_port}", credentials)

    def session(self, trusted: Certificate, shown: Certificate | None) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=client_context(trusted, shown))
        return aiohttp.ClientSession(f"https://127.0.0.1:{self.http_port}", connector=connector)


def client_context(
    trusted: Certificate, shown: Certificate | None = None, *, protocols: Sequence[str] = ()
) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=trusted.pem.decode())
    if shown is not None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(shown.pem + shown.key_pem)
            file.flush()
            context.load_cert_chain(file.name)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@asynccontextmanager
async def opened(
    files: TlsFiles, servicer: Servicer, interceptors: Sequence[ServerInterceptor]
) -> AsyncIterator[TlsDoors]:
    tls = ServerTls(files)
    server = grpc.aio.server(interceptors=list(interceptors), options=OPTIONS)
    register(server, servicer)
    grpc_port = server.add_secure_port("127.0.0.1:0", server_credentials(lambda: tls.material))
    await server.start()
    try:
        async with InProcessChannel(interceptors) as channel:
            register(cast("grpc.aio.Server", channel), servicer)
            app = build_app(cast("grpc.aio.Channel", channel), options=GatewayOptions())
            async with serve(app, host="127.0.0.1", port=0, tls=tls.context, drain_seconds=0.1) as address:
                yield TlsDoors(files=files, tls=tls, grpc_port=grpc_port, http_port=address.port)
    finally:
        await server.stop(grace=None)
