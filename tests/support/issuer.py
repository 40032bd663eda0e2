"""An OpenID Connect issuer on loopback, with real keys, and what forgers make of its tokens."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "jobledger"
REALM = "/realms/test"
DISCOVERY, JWKS = f"{REALM}/.well-known/openid-configuration", f"{REALM}/keys"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@cache
def private_key(algorithm: str, number: int = 0) -> Any:
    """A key for the algorithm; with another number, another key."""
    del number
    if algorithm.startswith("ES"):
        return ec.generate_private_key({"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1()}[algorithm])
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_jwk(key: Any, **members: Any) -> dict[str, Any]:
    """The public half as a JWK."""
    kinds: dict[str, Any] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm}
    kind = kinds["RSA"] if isinstance(key, rsa.RSAPrivateKey) else kinds["EC"]
    kind = OKPAlgorithm if isinstance(key, ed25519.Ed25519PrivateKey) else kind
    return {**kind.to_jwk(key.public_key(), as_dict=True), **members}


def forged(header: Mapping[str, Any], claims: Any, sign: Callable[[bytes], bytes] = lambda _: b"") -> str:
    """A token with this very header, whatever a library would say of it."""
    parts = [_encoded(json.dumps(part).encode()) for part in (header, claims)]
    signed = b".".join(parts)
    return b".".join((signed, _encoded(sign(signed)))).decode()


def hmac_by(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda signed: hmac.digest(secret, signed, hashlib.sha256)


def _encoded(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


class Issuer:
    """Answers as an issuer does, and notes who asks for what.

    Attributes:
        origin: where it listens.
        jwks: the keys that it publishes.
        answers: other answers by path, in place of its own.
        asked: the paths that were asked for, in order.
    """

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.jwks = [public_jwk(private_key(name), kid=name, use="sig") for name in ("RS256", "ES256", "EdDSA")]
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return self.origin + REALM

    def claims(self, now: float, **other: Any) -> dict[str, Any]:
        """Those of a token that is good for five minutes; None leaves one out."""
        found = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "iat": int(now), "exp": int(now) + 300, **other}
        return {name: value for name, value in found.items() if value is not None}

    def sign(
        self, claims: Mapping[str, Any], algorithm: str = "RS256", *, kid: str | None = None, **header: Any
    ) -> str:
        """A token, as this issuer signs it."""
        headers = {"kid": kid or algorithm, **header}
        return jwt.encode(dict(claims), private_key(algorithm), algorithm, {**headers})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        other = self.answers.get(request.path)
        if other is not None:
            return await other(request)
        if request.path == DISCOVERY:
            return web.json_response({"issuer": self.url, "jwks_uri": self.origin + JWKS})
        if request.path == JWKS:
            return web.json_response({"keys": self.jwks})
        return web.Response(status=404)


def saying(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    async def said(request: web.Request) -> web.StreamResponse:
        return web.json_response(document, status=status, headers=headers)

    return said


@asynccontextmanager
async def issuing(port: int = 0) -> AsyncIterator[Issuer]:
    """An issuer as long as the block lasts."""
    app = web.Application()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    issuer = Issuer("")
    app.router.add_route("*", "/{path:.*}", issuer.answer)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        issuer.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield issuer
    finally:
        await runner.cleanup()
