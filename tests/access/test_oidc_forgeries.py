"""What forgers of an issuer's tokens get, and what an issuer's own faults do."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jobledger_server.access.oidc import RefusedError, _header
from jobledger_server.core.errors import Reason
from support.issuer import Issuer, forged, hmac_by, private_key, public_jwk
from support.jwt_bench import Bench

INVALID = Reason.ERROR_REASON_AUTH_INVALID


async def test_forged_tokens_are_invalid_and_nobody_is_asked(bench: Bench, stranger: Issuer) -> None:
    """Algorithms that need no key, or another kind of it; keys that the token brings; keys that lie elsewhere."""
    claims = bench.claims(groups=["admins"])
    public = private_key("RS256").public_key()
    der, pem = (public.public_bytes(form, PublicFormat.SubjectPublicKeyInfo) for form in (Encoding.DER, Encoding.PEM))
    mine = private_key("RS256", 666)
    own = public_jwk(mine, kid="mine")
    tokens = [forged({"alg": name, "kid": "RS256"}, claims) for name in ("none", "None", "NONE", "", "RS256")]
    tokens += [forged({"alg": "HS256", "kid": "RS256"}, claims, hmac_by(secret)) for secret in (pem, der, b"")]
    tokens += [forged({"alg": "HS256", "kid": "RS256"}, claims, hmac_by(json.dumps(bench.issuer.jwks[0]).encode()))]
    tokens += [forged({"alg": alg, "kid": "RS256"}, claims) for alg in (["RS256"], None, {"RS256": 1}, 1, True)]
    for header in (
        {},
        {"jku": f"{stranger.url}/keys"},
        {"x5u": f"{stranger.url}/chain"},
        {"jwk": own},
        {"kid": "mine", "jwk": own, "jku": f"{stranger.url}/keys"},
        {"kid": f"{stranger.url}/keys"},
        {"kid": "../../x"},
        {"kid": "../../../../dev/null"},
        {"kid": "' OR 1=1 --"},
    ):
        tokens.append(_signed_by(mine, claims, **header))
    for token in tokens:
        assert await bench.refused(token) == INVALID, token
    assert {path.rpartition("/")[2] for path in bench.issuer.asked} == {"openid-configuration", "keys"}


def _signed_by(key: Any, claims: Mapping[str, Any], algorithm: str = "RS256", **header: Any) -> str:
    return jwt.encode(dict(claims), key, algorithm, {"kid": "RS256", **header})


async def test_a_key_checks_only_signatures_of_its_kind(bench: Bench) -> None:
    claims = bench.claims()
    for algorithm, kid in (("ES256", "RS256"), ("RS256", "ES256"), ("EdDSA", "ES256"), ("ES256", "EdDSA")):
        assert await bench.refused(bench.issuer.sign(claims, algorithm, kid=kid)) == INVALID
    for algorithm in ("PS256", "RS512", "ES384"):
        assert await bench.refused(bench.issuer.sign(claims, algorithm, kid=algorithm[:2] + "256")) == INVALID


async def test_the_header_decides_nothing_else(bench: Bench, stranger: Issuer) -> None:
    """Some issuers write where their keys are: that is not looked at. What must be understood and isn't is refused."""
    told = bench.issuer.sign(bench.claims(), jku=f"{stranger.url}/keys", x5u=stranger.url)
    assert (await bench.take(told)).subject.endswith("#alice")
    for header in ({"crit": ["b64"], "b64": True}, {"crit": ["x"], "x": 1}, {"typ": "logout+jwt"}, {"typ": 7}):
        token = forged({"alg": "RS256", "kid": "RS256", **header}, bench.claims(), _rs256)
        assert await bench.refused(token) == INVALID, header
    good = ({"typ": "at+jwt"}, {"typ": "JWT"})
    for header in good:
        await bench.take(bench.issuer.sign(bench.claims(jti=str(header)), **header))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another"},
        {"aud": ["another", "yet-another"]},
        {"aud": None},
        {"aud": []},
        {"aud": {"jobledger": 1}},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"iss": ["x"]},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a" * 256},
        {"sub": "a\nb"},
        {"sub": "a\u202eb"},
        {"sub": "\ud800"},
        {"exp": None},
        {"exp": "9999999999"},
        {"exp": True},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": 10**400},
        {"nbf": "soon"},
        {"iat": [1]},
        {"cnf": {"jkt": "x"}},
    ],
)
async def test_a_claim_that_is_not_right_is_invalid(bench: Bench, claims: dict[str, Any]) -> None:
    token = forged({"alg": "RS256", "kid": "RS256"}, bench.claims(**claims), _rs256)
    assert await bench.refused(token) == INVALID


def _rs256(signed: bytes) -> bytes:
    return bytes(private_key("RS256").sign(signed, PKCS1v15(), SHA256()))


@pytest.mark.parametrize("payload", [b"[]", b"7", b"null", b"{", b"\xff", b'{"exp":' + b"9" * 5000 + b"}", b"[" * 3000])
async def test_a_payload_that_is_no_object_is_invalid(bench: Bench, payload: bytes) -> None:
    """Signed all the same: an issuer's fault must not be one of ours."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"RS256","kid":"RS256"}', payload)]
    signed = b".".join(parts)
    token = b".".join((signed, base64.urlsafe_b64encode(_rs256(signed)).rstrip(b"="))).decode()
    assert await bench.refused(token) == INVALID


@given(st.binary(max_size=200))
def test_no_header_is_more_than_refused(raw: bytes) -> None:
    for part in (raw, base64.urlsafe_b64encode(raw)):
        try:
            assert isinstance(_header(part + b".e30."), Mapping)
        except RefusedError:
            continue
