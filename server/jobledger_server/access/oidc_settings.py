"""What the operator says of the issuer whose tokens (JWTs) are taken beside the server's own."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from jobledger_server.core.policy import SCOPES

DEFAULT_ALGORITHMS = ("RS256", "ES256", "EdDSA")
# Signatures alone: what is keyed with a secret (HS256) would take a public key for one.
ALGORITHMS = (*DEFAULT_ALGORITHMS, "RS384", "RS512", "PS256", "PS384", "PS512", "ES384", "ES512")


class OidcSettingsError(ValueError):
    """A setting of the issuer that can't be; the message names it and what it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """An issuer, and what the holders of its tokens may do.

    Attributes:
        issuer: its URL, as the claim `iss` has it.
        audiences: of which the claim `aud` must have one.
        algorithms: with which tokens may be signed.
        jwks_uri: where its keys are; empty: where its discovery document says, on the issuer's own origin.
        scope_claim: claim whose values `scope_map` gives scopes for; dots lead into objects.
        scope_map: scopes by value of that claim; other values give none.
        workspace_claim: claim with the workspaces that a holder is bound to; empty: all of them.
        max_lifetime_seconds: how long tokens may be valid from their `iat` to their `exp`; 0: without a bound.
    """

    issuer: str
    audiences: tuple[str, ...]
    scope_map: tuple[tuple[str, tuple[str, ...]], ...]
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    jwks_uri: str = ""
    scope_claim: str = "scope"
    workspace_claim: str = ""
    max_lifetime_seconds: int = 0

    def __str__(self) -> str:
        rules = "; ".join(f"{self.scope_claim} {value}: {' '.join(scopes)}" for value, scopes in self.scope_map)
        return f"{self.issuer} for {' '.join(self.audiences)} ({rules})"


def oidc_of(table: Any) -> OidcSettings:
    """The settings from a table as the file has it.

    Raises:
        OidcSettingsError: something is missing, of the wrong kind, or not known.
    """
    if not isinstance(table, Mapping):
        raise OidcSettingsError("it must be a table with issuer, audience and scope_map")
    fields = dict(table)
    settings = OidcSettings(
        issuer=_url(fields, "issuer"),
        audiences=_texts(fields, "audience"),
        scope_map=_scope_map(fields.pop("scope_map", {})),
        algorithms=_algorithms(fields),
        jwks_uri=_url(fields, "jwks_uri") if "jwks_uri" in fields else "",
        scope_claim=_text(fields, "scope_claim", "scope"),
        workspace_claim=_text(fields, "workspace_claim", "") if "workspace_claim" in fields else "",
        max_lifetime_seconds=_seconds(fields),
    )
    if fields:
        raise OidcSettingsError(f"there is no setting {', '.join(sorted(map(str, fields)))}")
    return settings


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL.

    Raises:
        ValueError: it has none, or can't be asked safely: neither https, nor http on this very machine.
    """
    parts = urlsplit(url)
    host = parts.hostname
    if not host or parts.username is not None or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("is not a URL such as https://issuer.example/realm")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ValueError("must begin with https:// (http:// is for loopback alone)")
    return parts.scheme, host, _port(parts)


def _port(parts: SplitResult) -> int:
    return parts.port if parts.port is not None else {"https": 443, "http": 80}[parts.scheme]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(fields: dict[str, Any], name: str) -> str:
    url = _text(fields, name)
    try:
        origin_of(url)
    except ValueError as error:
        raise OidcSettingsError(f"{name} {url!r}: {error}") from None
    parts = urlsplit(url)
    if name == "issuer" and (parts.query or parts.fragment):
        raise OidcSettingsError(f"issuer {url!r} must have no query and no fragment")
    return url


def _text(fields: dict[str, Any], name: str, default: str | None = None) -> str:
    value = fields.pop(name, default)
    if not isinstance(value, str) or not value:
        raise OidcSettingsError(f"{name} must be given, as a text")
    return value


def _texts(fields: dict[str, Any], name: str) -> tuple[str, ...]:
    value = fields.pop(name, ())
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise OidcSettingsError(f"{name} must be given, as a text or a list of texts")
    return tuple(texts)


def _algorithms(fields: dict[str, Any]) -> tuple[str, ...]:
    if "algorithms" not in fields:
        return DEFAULT_ALGORITHMS
    algorithms = _texts(fields, "algorithms")
    unknown = set(algorithms) - set(ALGORITHMS)
    if unknown:
        told = ", ".join(sorted(unknown))
        raise OidcSettingsError(f"algorithms: {told} can't be used; there are {', '.join(ALGORITHMS)}")
    return algorithms


def _scope_map(table: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(table, Mapping) or not table:
        raise OidcSettingsError('scope_map must be given, as a table such as {"jobs-admins" = ["admin"]}')
    rules = []
    for value, scopes in table.items():
        if not isinstance(scopes, list) or not set(map(str, scopes)) <= set(SCOPES):
            raise OidcSettingsError(f"scope_map {value!r} must be a list of scopes, of {', '.join(SCOPES)}")
        rules.append((str(value), tuple(map(str, scopes))))
    return tuple(rules)


def _seconds(fields: dict[str, Any]) -> int:
    value = fields.pop("max_lifetime_seconds", 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise OidcSettingsError("max_lifetime_seconds must be a whole number of seconds")
    return value
