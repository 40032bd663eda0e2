"""What new connections are met with: it follows the files, and a bad change of theirs takes nothing away."""

import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from jobledger_server.access.private_files import PrivateFileError
from jobledger_server.access.tls_files import TlsFileError, TlsFiles, TlsMaterial, load

log = logging.getLogger(__name__)
WARNED_BEFORE = timedelta(days=7)


class ServerTls:
    """Certificate, key and authorities of the moment. Connections that are open go on with what they began with.

    Attributes:
        material: what counts now; read from any thread.
        context: for servers on asyncio: each new connection gets that of `material`.
        on_change: called with new material once it counts.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Raises TlsFileError or PrivateFileError."""
        self._files = files
        self._stamps = files.stamps()
        self.material = load(files)
        self.context: ssl.SSLContext = _CurrentContext(lambda: self.material.context)
        self.on_change: Callable[[TlsMaterial], None] = lambda _: None
        self._tell("serves")

    def changed(self) -> bool:
        """Whether a file is another one than when they were last read."""
        return self._files.stamps() != self._stamps

    def read(self) -> TlsMaterial | None:
        """The files as they are now; None, and a line in the log, where they are not good."""
        self._stamps = self._files.stamps()
        try:
            return load(self._files)
        except (TlsFileError, PrivateFileError) as error:
            log.warning("TLS goes on with the certificate that it had: %s", error)
            return None

    def take(self, material: TlsMaterial) -> None:
        """From now on new connections are met with this."""
        if (material.chain, material.key, material.client_ca) == (
            self.material.chain,
            self.material.key,
            self.material.client_ca,
        ):
            return
        self.material = material
        self._tell("serves from now on")
        self.on_change(material)

    def _tell(self, serves: str) -> None:
        material = self.material
        level = logging.INFO if material.expires_at - datetime.now(UTC) > WARNED_BEFORE else logging.WARNING
        names = ", ".join(material.names) or "no host"
        log.log(level, "TLS %s a certificate for %s that expires at %s", serves, names, material.expires_at)


class _CurrentContext(ssl.SSLContext):
    """Meets each connection with the context of the moment: asyncio keeps the one that it was given for ever.

    Nothing less will do: authorities can be added to a context, but not taken away.
    """

    def __new__(cls, current: Callable[[], ssl.SSLContext]) -> "_CurrentContext":  # noqa: ARG004 - for __init__
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, current: Callable[[], ssl.SSLContext]) -> None:
        super().__init__()
        self._current = current

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        return self._current().wrap_bio(*args, **options)
