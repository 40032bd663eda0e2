"""Opens TLS where the settings ask for it."""

import asyncio
import logging
from contextlib import AsyncExitStack

from jobledger_server.access.certificates import ClientCertificates
from jobledger_server.access.server_tls import ServerTls
from jobledger_server.access.tls_files import TlsFiles
from jobledger_server.config import LOOPBACK, Settings
from jobledger_server.core.ports import Clock
from jobledger_server.service.tls_watch import TlsWatch

log = logging.getLogger(__name__)
IN_THE_CLEAR = (
    "INSECURE: %s is not this machine alone, and there is no TLS. Tokens cross the network in the clear; whoever reads "
    "one runs commands as this user. Set tls_certificate and tls_key, or put TLS in front of it"
)


async def open_tls(stack: AsyncExitStack, settings: Settings) -> TlsWatch | None:
    """What connections are met with, watched as long as the stack is open; None without TLS.

    Raises:
        TlsFileError, PrivateFileError: a file is not what it must be.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        if settings.host not in LOOPBACK:
            log.warning(IN_THE_CLEAR, settings.host)
        return None
    files = TlsFiles(certificate=settings.tls_certificate, key=settings.tls_key, client_ca=settings.tls_client_ca)
    tls = await asyncio.to_thread(ServerTls, files)
    return await stack.enter_async_context(TlsWatch(tls))


def client_certificates(settings: Settings, clock: Clock) -> ClientCertificates | None:
    """Who is known by a certificate; None where clients are not asked for one."""
    if settings.tls_client_ca is None:
        return None
    return ClientCertificates(peers=settings.peers, clock=clock)
