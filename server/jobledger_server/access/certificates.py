"""Clients that are known by their certificates: who one is, and what it may do.

Whether a certificate is good - signed by the configured authorities, its key in the client's hands - was decided by TLS
before anything was asked.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from cryptography import x509

from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import SCOPES, Principal
from jobledger_server.core.ports import Clock
from jobledger_server.core.times import SECOND

FIELDS = frozenset({"scopes", "workspaces"})
# What a certificate's two kinds of names begin with. The first of ":" and "=" tells them apart, so that nobody whose
# authority admits any URI is called by another's subject, or the other way round.
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
SUBJECT = re.compile(r"([A-Za-z][A-Za-z0-9-]*|[0-9]+(\.[0-9]+)*)=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What the holder of a certificate with this identity may do; without workspaces: in all of them."""

    identity: str
    scopes: tuple[str, ...]
    workspaces: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" in {' '.join(self.workspaces)}" if self.workspaces else ""
        return f"{self.identity}: {' '.join(self.scopes)}{where}"


def peers_of(table: Mapping[str, Mapping[str, Iterable[str]]]) -> tuple[Peer, ...]:
    """Peers from a table by identity, each with `scopes` and maybe `workspaces`.

    Raises:
        ValueError, TypeError, KeyError: it is none, or names a scope that there is not, or what is neither a URI nor a
            subject.
    """
    return tuple(_peer(identity, dict(rule)) for identity, rule in table.items())


def _peer(identity: str, rule: Mapping[str, Iterable[str]]) -> Peer:
    # A list that is empty by mistake must not stand for all workspaces.
    if not (URI.match(identity) or SUBJECT.match(identity)):
        raise ValueError(identity)
    if "scopes" not in rule or rule.keys() - FIELDS or not all(rule.values()):
        raise ValueError(identity)
    for values in rule.values():
        if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
            raise TypeError(identity)
    if not set(rule["scopes"]) <= set(SCOPES):
        raise ValueError(rule["scopes"])
    return Peer(identity=identity, scopes=tuple(rule["scopes"]), workspaces=tuple(rule.get("workspaces", ())))


class ClientCertificates:
    """Tells whose certificate it is."""

    def __init__(self, *, peers: Iterable[Peer], clock: Clock) -> None:
        self._principals = {peer.identity: _principal(peer) for peer in peers}
        self._clock = clock

    def principal(self, pem: bytes) -> Principal:
        """The principal behind a certificate that TLS has found good.

        Raises:
            ServiceError: AUTH_MISSING where its identity has no rule; AUTH_INVALID where it has expired since.
        """
        known = identify(pem)
        principal = self._principals.get(known.identity)
        if self._clock.now() >= known.expires_at:
            raise ServiceError(
                Reason.ERROR_REASON_AUTH_INVALID,
                "The client certificate has expired: connect with a new one",
                token_id="" if principal is None else principal.token_id,
                subject="" if principal is None else principal.subject,
            )
        if principal is None:
            raise ServiceError(
                Reason.ERROR_REASON_AUTH_MISSING,
                "The client certificate alone lets nobody in: send a token, or have the operator add its identity",
            )
        return replace(principal, expires_at=known.expires_at)


class Identified(NamedTuple):
    """Who a certificate is for, "" where it does not say, and until when (microseconds since the epoch)."""

    identity: str
    expires_at: int


# Of a connection it is asked at each call.
@lru_cache(maxsize=1024)
def identify(pem: bytes) -> Identified:
    """The one URI among the certificate's names; its subject (RFC 4514, such as `CN=worker-1,O=Acme`) where none is.

    A name that stands among the URIs and is none makes it nobody's.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    expires_at = int(certificate.not_valid_after_utc.timestamp()) * SECOND
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    except ValueError:
        # Extensions that can't be read name nobody.
        return Identified("", expires_at)
    if uris:
        return Identified(uris[0] if len(uris) == 1 and URI.match(uris[0]) else "", expires_at)
    subject = certificate.subject.rfc4514_string()
    return Identified(subject if SUBJECT.match(subject) else "", expires_at)


def _principal(peer: Peer) -> Principal:
    return Principal(
        token_id=f"cert:{peer.identity}",
        subject=f"cert:{peer.identity}",
        scopes=frozenset(peer.scopes),
        workspaces=frozenset(peer.workspaces) if peer.workspaces else None,
    )
