"""What an OpenAPI document says of the API as a whole."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata

from google.protobuf.descriptor import ServiceDescriptor

from jobledger_gateway.comments import comments
from jobledger_gateway.dialect import Dialect

VERSIONED = re.compile(r"v[0-9]+((alpha|beta)[0-9]*)?")

JOBLEDGER = """Jobs you can trust: submit, watch, cancel and read them, and keep a signed receipt of each.

Names are snake_case, enums short and lower case, times RFC 3339 in UTC, durations seconds such as `"1.5s"`. What is not
understood is refused, never ignored; null means unset. Every error is `{"error_code", "message", "details"}`; under
`/gateway` it is `{"error": {"type", "code", "message"}}`."""
OTHER = 'What is not understood is refused, never ignored. Every error is `{"error_code", "message", "details"}`.'


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """An API.

    Attributes:
        dialect: how its messages look in JSON.
        texts: comments by full name.
        is_own: whether it is Jobledger's: with the operators' view, and a token for everything.
    """

    title: str
    version: str
    description: str
    dialect: Dialect = Dialect.PLAIN
    texts: Mapping[str, str] = field(default_factory=dict)
    is_own: bool = False


def about_jobledger() -> About:
    """Jobledger's own."""
    version = metadata.version("jobledger")
    return About(title="Jobledger", version=version, description=JOBLEDGER, texts=comments(), is_own=True)


def about_services(services: Sequence[ServiceDescriptor], *, dialect: Dialect, texts: Mapping[str, str]) -> About:
    """That of services; a package whose name ends as `v1` does tells its version."""
    names = ", ".join(service.full_name for service in services)
    last = services[0].file.package.rpartition(".")[2] if services else ""
    version = last if VERSIONED.fullmatch(last) else "unversioned"
    return About(title=names or "No services", version=version, description=OTHER, dialect=dialect, texts=texts)
