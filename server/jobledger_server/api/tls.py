"""TLS on the gRPC door."""

from collections.abc import Callable

import grpc

from jobledger_server.access.tls_files import TlsMaterial


def server_credentials(current: Callable[[], TlsMaterial]) -> grpc.ServerCredentials:
    """Credentials with which each new connection is met with the material of the moment.

    Clients must show a certificate if there are authorities to hold it against; whether there are stays as it was at
    the beginning.
    """
    latest = current()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        # Asked by grpc's own threads at each handshake. Twice the same by a race does no harm.
        nonlocal latest
        material = current()
        if material is latest:
            return None
        latest = material
        return _configuration(material)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(latest),
        renewed,  # type: ignore[arg-type] # None is how grpc is told that nothing has changed
        require_client_authentication=latest.client_ca is not None,
    )


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.chain)], material.client_ca)
