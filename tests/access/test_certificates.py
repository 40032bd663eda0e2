"""Clients that are known by their certificates."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from jobledger_server.access.certificates import SUBJECT, URI, ClientCertificates, Peer, identify, peers_of
from jobledger_server.config import SettingsError, resolve, settings_of
from jobledger_server.core.clock import SystemClock
from jobledger_server.core.errors import Reason, ServiceError
from support.certificates import Authority
from support.clock import ManualClock

AUTHORITY = Authority.make()
WORKER = "spiffe://acme.example/worker"
PEERS = peers_of(
    {
        WORKER: {"scopes": ["jobs:read", "jobs:create"], "workspaces": ["builds"]},
        "CN=worker-1,O=Acme": {"scopes": ["worker"]},
    }
)


def refusal(certificates: ClientCertificates, pem: bytes) -> object:
    with pytest.raises(ServiceError) as caught:
        certificates.principal(pem)
    return caught.value.reason


@pytest.mark.parametrize(
    ("uris", "subject", "identity"),
    [
        ((WORKER,), "worker-1", WORKER),
        (("https://acme.example/x",), "worker-1", "https://acme.example/x"),
        ((), "worker-1", "CN=worker-1,O=Acme"),
        ((), "a,b=c+d", r"CN=a\,b=c\+d,O=Acme"),
        ((WORKER, "spiffe://acme.example/admin"), "worker-1", ""),
        (("CN=worker-1,O=Acme",), "nobody", ""),
        (("2.5.4.3=worker-1",), "nobody", ""),
        (("/acme.example/x",), "worker-1", ""),
        (("urn:CN=worker-1",), "nobody", "urn:CN=worker-1"),
        ((), "urn:x", "CN=urn:x,O=Acme"),
    ],
)
def test_an_identity_is_the_one_uri_or_the_subject(uris: tuple[str, ...], subject: str, identity: str) -> None:
    """Of two URIs neither can be trusted to be the one that was meant."""
    assert identify(AUTHORITY.client(*uris, subject=subject).pem).identity == identity


def test_no_uri_is_the_subject_of_another() -> None:
    """An authority that lets its clients choose their URIs gives none of them the name of another by it."""
    certificates = ClientCertificates(peers=PEERS, clock=SystemClock())
    forged = AUTHORITY.client("CN=worker-1,O=Acme", subject="nobody")
    assert refusal(certificates, forged.pem) == Reason.ERROR_REASON_AUTH_MISSING


@given(st.text(), st.text(max_size=20))
def test_what_one_is_called_is_a_uri_or_a_subject_and_never_both(text: str, value: str) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value or "x")]).rfc4514_string()
    for name in (text, subject, f"urn:{text}", f"{subject}:{text}"):
        assert not (URI.match(name) and SUBJECT.match(name))
    assert SUBJECT.match(subject)


def test_a_certificate_may_do_what_its_identity_may() -> None:
    certificates = ClientCertificates(peers=PEERS, clock=SystemClock())
    worker = certificates.principal(AUTHORITY.client(WORKER).pem)
    assert (worker.token_id, worker.scopes) == (f"cert:{WORKER}", frozenset({"jobs:read", "jobs:create"}))
    assert worker.workspaces == frozenset({"builds"})
    assert certificates.principal(AUTHORITY.client().pem).workspaces is None


@pytest.mark.parametrize(
    "uris", [("spiffe://acme.example/other",), (f"{WORKER}/child",), (WORKER, "spiffe://acme.example/other")]
)
def test_a_certificate_of_nobody_lets_nobody_in(uris: tuple[str, ...]) -> None:
    """A URI that has no rule isn't helped by a subject that has one."""
    certificates = ClientCertificates(peers=PEERS, clock=SystemClock())
    assert refusal(certificates, AUTHORITY.client(*uris).pem) == Reason.ERROR_REASON_AUTH_MISSING


def test_one_that_expires_while_connected_counts_no_longer() -> None:
    clock = ManualClock(SystemClock().now())
    certificates = ClientCertificates(peers=PEERS, clock=clock)
    pem = AUTHORITY.client(WORKER, expires_in=timedelta(seconds=60)).pem
    assert certificates.principal(pem).expires_at == identify(pem).expires_at
    clock.advance(61)
    with pytest.raises(ServiceError) as caught:
        certificates.principal(pem)
    assert caught.value.reason == Reason.ERROR_REASON_AUTH_INVALID
    assert caught.value.token_id == caught.value.subject == f"cert:{WORKER}", "for the audit log"


@pytest.mark.parametrize(
    "table",
    [
        {"": {"scopes": ["worker"]}},
        {"worker-1": {"scopes": ["worker"]}},
        {"=worker-1": {"scopes": ["worker"]}},
        {"//acme.example/worker": {"scopes": ["worker"]}},
        {WORKER: {}},
        {WORKER: {"workspaces": ["a"]}},
        {WORKER: {"scopes": []}},
        {WORKER: {"scopes": "worker"}},
        {WORKER: {"scopes": [["worker"]]}},
        {WORKER: {"scopes": ["jobs:write"]}},
        {WORKER: {"scopes": ["worker"], "workspaces": []}},
        {WORKER: {"scopes": ["worker"], "workspaces": [""]}},
        {WORKER: {"scopes": ["worker"], "workspace": ["a"]}},
        {WORKER: ["worker"]},
        [WORKER],
    ],
)
def test_a_rule_that_says_less_or_more_than_it_can_is_refused(table: Any) -> None:
    """Above all, no slip of the pen may stand for all workspaces."""
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        peers_of(table)


def test_rules_come_from_the_file_or_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "jobledger.toml"
    file.write_text(f'[peers."{WORKER}"]\nscopes = ["jobs:read"]\nworkspaces = ["builds"]\n')
    tls = {f"JOBLEDGER_TLS_{name}": str(tmp_path / name) for name in ("CERTIFICATE", "KEY", "CLIENT_CA")}
    expected = (Peer(identity=WORKER, scopes=("jobs:read",), workspaces=("builds",)),)
    assert settings_of(resolve({}, tls, file)).peers == expected
    variable = f'{{"{WORKER}": {{"scopes": ["jobs:read"], "workspaces": ["builds"]}}}}'
    assert settings_of(resolve({}, {**tls, "JOBLEDGER_PEERS": variable}, None)).peers == expected
    with pytest.raises(SettingsError, match=r"^peers: .* is not by URI or subject, as "):
        settings_of(resolve({}, {**tls, "JOBLEDGER_PEERS": variable.replace(WORKER, "worker-1")}, None))
    with pytest.raises(SettingsError, match=r"peers .* is of no use without tls_client_ca"):
        settings_of(resolve({}, {"JOBLEDGER_PEERS": variable}, None))
