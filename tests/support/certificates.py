"""Authorities and certificates, made anew for each run."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

HOUR = timedelta(hours=1)
SERVER_NAMES = ("127.0.0.1", "jobs.example.org")


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key."""

    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def sha256(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @staticmethod
    def sha256_of(pem: str) -> str:
        return x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256()).hex()

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def write(self, directory: Path, name: str) -> Self:
        """`name.pem` and, for its owner alone, `name.key`; both at once, as a careful operator does."""
        directory.mkdir(exist_ok=True)
        for suffix, data in (("pem", self.pem), ("key", self.key_pem)):
            partial = directory / f".{name}.{suffix}"
            partial.write_bytes(data)
            partial.chmod(0o600)
            partial.rename(directory / f"{name}.{suffix}")
        return self


class Authority(Certificate):
    """Signs certificates."""

    @classmethod
    def make(cls, name: str = "Test authority") -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(key, _sign(key, _subject(name), _subject(name), key, ca=True))

    def server(self, *names: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None) -> Certificate:
        """For these hosts and addresses."""
        return self._issue(_subject("server"), [_general_name(name) for name in names or SERVER_NAMES], key=key)

    def client(self, *uris: str, subject: str = "worker-1", expires_in: timedelta = HOUR) -> Certificate:
        """For a client that is called by these URIs."""
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        return self._issue(_subject(subject), names, expires_in=expires_in)

    def _issue(
        self,
        subject: x509.Name,
        names: list[x509.GeneralName],
        *,
        expires_in: timedelta = HOUR,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
    ) -> Certificate:
        key = key or ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.subject
        return Certificate(key, _sign(key, subject, issuer, self.key, names=names, expires_in=expires_in))


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _sign(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    subject: x509.Name,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    *,
    names: list[x509.GeneralName] | None = None,
    expires_in: timedelta = HOUR,
    ca: bool = False,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(
            issuer_name=issuer,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
        )
        .not_valid_before(min(now, now + expires_in) - HOUR)
        .not_valid_after(now + expires_in)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256())
