"""Signed codes: three kinds, three audiences, three validators (law 14). Pure.

PyJWT is told less than it could be trusted with: it does not check `typ`, accepts a token without
`exp` and one with padding added, and may raise TypeError. So a token must look exactly as we write
it before PyJWT sees it, every claim is checked here, and whatever goes wrong is a refusal.
"""

import base64
import binascii
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ALGORITHM = "EdDSA"
"""The one algorithm: with no other in the code, there is none to be confused with."""

MAX_LENGTH = 1024
"""Longer texts are refused unread: parsing megabytes is what an attacker would like."""

DISPLAY_PERIOD = timedelta(seconds=30)
"""How long a screen shows one code."""

DISPLAY_GRACE = timedelta(seconds=15)
"""How much longer it is taken, for a slow phone (promises T02)."""

PASS_LIFETIME = timedelta(seconds=60)
"""How long a pass is good."""

CLOCK_SLACK = timedelta(seconds=5)
"""How far in the future a code may have been issued."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""From here the periods of display codes are counted."""

KID = re.compile(r"[a-z0-9]{1,8}")
_SHAPE = re.compile(r"[A-Za-z0-9_-]{1,200}\.[A-Za-z0-9_-]{1,800}\.[A-Za-z0-9_-]{86}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_KID_LENGTH = 5


class TokenKind(StrEnum):
    """What a code is for."""

    POSTER = "poster"
    """Printed at the door."""
    DISPLAY = "display"
    """Rotating on a screen at the door."""
    PASS = "pass"
    """Shown on the worker's phone to a reader."""


TYP = {
    TokenKind.POSTER: "poster+jwt",
    TokenKind.DISPLAY: "door+jwt",
    TokenKind.PASS: "pass+jwt",
}
"""The media type in each kind's header."""

_KIND_OF_TYP = {typ: kind for kind, typ in TYP.items()}


class TokenRefusal(StrEnum):
    """Why a text is not a good code; the values are reasons of a scan."""

    TOKEN_INVALID = "token_invalid"
    TOKEN_EXPIRED = "token_expired"
    WRONG_KIND = "wrong_kind"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key of one kind."""

    kid: str
    kind: TokenKind
    private_key: Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key of one kind."""

    kid: str
    kind: TokenKind
    public_key: Ed25519PublicKey


Keys = Mapping[str, VerifyingKey]
"""The keys that verify, by `kid`."""


@dataclass(frozen=True, slots=True)
class PosterClaims:
    """A poster names a door and a generation; it never expires, its door revokes it."""

    d: str
    g: int


@dataclass(frozen=True, slots=True)
class DisplayClaims:
    """A display code names a door for some seconds."""

    d: str
    issued_at: datetime
    expires_at: datetime
    jti: str


@dataclass(frozen=True, slots=True)
class PassClaims:
    """A pass names a worker at one station for a minute."""

    station: str
    worker: str
    issued_at: datetime
    expires_at: datetime
    jti: str


def generate_key(kind: TokenKind) -> SigningKey:
    """Make a key with a short random `kid`."""
    kid = "".join(secrets.choice(_BASE32) for _ in range(_KID_LENGTH))
    return SigningKey(kid, kind, Ed25519PrivateKey.generate())


def signing_key(kid: str, kind: TokenKind, private: bytes) -> SigningKey:
    """Read a key from its 32 private bytes."""
    return SigningKey(kid, kind, Ed25519PrivateKey.from_private_bytes(private))


def verifying_key(kid: str, kind: TokenKind, public: bytes) -> VerifyingKey:
    """Read a key from its 32 public bytes."""
    return VerifyingKey(kid, kind, Ed25519PublicKey.from_public_bytes(public))


def private_bytes(key: SigningKey) -> bytes:
    """Give the 32 private bytes."""
    return key.private_key.private_bytes_raw()


def public_bytes(key: SigningKey) -> bytes:
    """Give the 32 public bytes."""
    return key.private_key.public_key().public_bytes_raw()


def jwk(key: VerifyingKey) -> dict[str, str]:
    """Write a public key as a JSON Web Key (RFC 8037)."""
    x = base64.urlsafe_b64encode(key.public_key.public_bytes_raw()).decode().rstrip("=")
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": x,
        "kid": key.kid,
        "use": "sig",
        "alg": ALGORITHM,
        "typ": TYP[key.kind],
    }


def read_jwk(text: object) -> VerifyingKey | None:
    """Read a public key that `jwk` wrote; None for any other."""
    if not isinstance(text, dict):
        return None
    kid, typ, x = text.get("kid"), text.get("typ"), text.get("x")
    if (text.get("kty"), text.get("crv")) != ("OKP", "Ed25519"):
        return None
    if not isinstance(typ, str) or typ not in _KIND_OF_TYP:
        return None
    raw = _decoded(x) if isinstance(x, str) else None
    if raw is None or len(raw) != 32 or not isinstance(kid, str) or not KID.fullmatch(kid):
        return None
    return verifying_key(kid, _KIND_OF_TYP[typ], raw)


def sign_poster(key: SigningKey, *, door: str, generation: int) -> str:
    """Sign the code of a printed poster.

    Like its siblings it raises ValueError for a key of another kind, and for claims that no
    validator would take.
    """
    return _sign(key, TokenKind.POSTER, {"d": door, "g": generation}, _read_poster)


def sign_display(
    key: SigningKey, *, door: str, issued_at: datetime, expires_at: datetime, jti: str
) -> str:
    """Sign one code of a door's screen."""
    claims = {"d": door, "iat": _seconds(issued_at), "exp": _seconds(expires_at), "jti": jti}
    return _sign(key, TokenKind.DISPLAY, claims, _read_display)


def sign_pass(
    key: SigningKey,
    *,
    station: str,
    worker: str,
    issued_at: datetime,
    expires_at: datetime,
    jti: str,
) -> str:
    """Sign a worker's pass for one station."""
    claims = {
        "aud": station,
        "sub": worker,
        "iat": _seconds(issued_at),
        "exp": _seconds(expires_at),
        "jti": jti,
    }
    return _sign(key, TokenKind.PASS, claims, _read_pass)


def verify_poster(keys: Keys, token: str) -> PosterClaims | TokenRefusal:
    """Check a poster's signature and shape; its generation is the door's to judge."""
    return _verify(keys, token, TokenKind.POSTER, _read_poster)


def read_display(keys: Keys, token: str) -> DisplayClaims | TokenRefusal:
    """Check a display code's signature and shape, whatever its time."""
    return _verify(keys, token, TokenKind.DISPLAY, _read_display)


def verify_display(keys: Keys, token: str, at: datetime) -> DisplayClaims | TokenRefusal:
    """Check a display code at an instant: good in `[iat, exp)`, at most 45 s long.

    The reader's clock may be up to 5 s behind the signer's.
    """
    found = read_display(keys, token)
    return found if isinstance(found, TokenRefusal) else timely(found, at)


def verify_pass(
    keys: Keys, token: str, at: datetime, *, audience: str
) -> PassClaims | TokenRefusal:
    """Check a pass at an instant and at one station; another station's pass is invalid here."""
    found = _verify(keys, token, TokenKind.PASS, _read_pass)
    if isinstance(found, TokenRefusal):
        return found
    return TokenRefusal.TOKEN_INVALID if found.station != audience else timely(found, at)


def kind_of(token: str) -> TokenKind | None:
    """Say what kind of code a text claims to be, without believing it."""
    header = _header(token)
    return _KIND_OF_TYP.get(header["typ"]) if header else None


def kid_of(token: str) -> str | None:
    """Say which key a text claims to be signed with, without believing it."""
    header = _header(token)
    return header["kid"] if header else None


_Claims = TypeVar("_Claims", PosterClaims, DisplayClaims, PassClaims)
_Timed = TypeVar("_Timed", DisplayClaims, PassClaims)


def _sign(
    key: SigningKey,
    kind: TokenKind,
    claims: dict[str, Any],
    read: Callable[[dict[str, Any]], _Claims],
) -> str:
    if key.kind is not kind:
        raise ValueError(f"a {key.kind.value} key does not sign a {kind.value}")
    read(claims)
    headers = {"kid": key.kid, "typ": TYP[kind]}
    return jwt.encode(claims, key.private_key, algorithm=ALGORITHM, headers=headers)


def _verify(
    keys: Keys, token: str, kind: TokenKind, read: Callable[[dict[str, Any]], _Claims]
) -> _Claims | TokenRefusal:
    header = _header(token)
    if header is None:
        return TokenRefusal.TOKEN_INVALID
    key = keys.get(header["kid"])
    if key is None or TYP[key.kind] != header["typ"]:
        return TokenRefusal.TOKEN_INVALID
    try:
        claims = jwt.decode(
            token,
            key.public_key,
            algorithms=[ALGORITHM],
            options={
                "require": [],
                "verify_exp": False,
                "verify_iat": False,
                "verify_aud": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
        return read(claims) if key.kind is kind else TokenRefusal.WRONG_KIND
    except Exception:  # Whatever a forged text provokes in a parser, it is not a good code.
        return TokenRefusal.TOKEN_INVALID


def _read_poster(claims: dict[str, Any]) -> PosterClaims:
    _only(claims, "d", "g")
    return PosterClaims(_name(claims["d"]), _count(claims["g"]))


def _read_display(claims: dict[str, Any]) -> DisplayClaims:
    _only(claims, "d", "iat", "exp", "jti")
    issued_at, expires_at = _lifetime(claims, DISPLAY_PERIOD + DISPLAY_GRACE)
    return DisplayClaims(_name(claims["d"]), issued_at, expires_at, _name(claims["jti"]))


def _read_pass(claims: dict[str, Any]) -> PassClaims:
    _only(claims, "aud", "sub", "iat", "exp", "jti")
    issued_at, expires_at = _lifetime(claims, PASS_LIFETIME)
    return PassClaims(
        _name(claims["aud"]), _name(claims["sub"]), issued_at, expires_at, _name(claims["jti"])
    )


def _only(claims: dict[str, Any], *names: str) -> None:
    if set(claims) != set(names):
        raise ValueError("not the claims of this kind")


def _header(token: str) -> dict[str, str] | None:
    """Read the header of a text that looks exactly as we write tokens; None for any other."""
    if len(token) > MAX_LENGTH or not _SHAPE.fullmatch(token):
        return None
    parts = token.split(".")
    decoded = [_decoded(part) for part in parts]
    if any(part is None for part in decoded):
        return None
    try:
        header = json.loads(decoded[0] or b"")
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict) or set(header) != {"alg", "kid", "typ"}:
        return None
    if not all(isinstance(value, str) for value in header.values()):
        return None
    if header["alg"] != ALGORITHM or not KID.fullmatch(header["kid"]):
        return None
    return header if header["typ"] in _KIND_OF_TYP else None


def _decoded(part: str) -> bytes | None:
    """Decode one part if it is spelled the one canonical way."""
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        return None
    return raw if base64.urlsafe_b64encode(raw).decode().rstrip("=") == part else None


def _seconds(at: datetime) -> int:
    return int(at.timestamp())


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("not a name")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError("not a count")
    return value


def _lifetime(claims: dict[str, Any], longest: timedelta) -> tuple[datetime, datetime]:
    issued, expires = claims["iat"], claims["exp"]
    if type(issued) is not int or type(expires) is not int:
        raise ValueError("not whole seconds")
    issued_at, expires_at = (
        datetime.fromtimestamp(issued, UTC),
        datetime.fromtimestamp(expires, UTC),
    )
    if not timedelta(0) < expires_at - issued_at <= longest:
        raise ValueError("not a lifetime of this kind")
    return issued_at, expires_at


def timely(claims: _Timed, at: datetime) -> _Timed | TokenRefusal:
    """Judge a code's time at an instant."""
    if claims.issued_at > at + CLOCK_SLACK:
        return TokenRefusal.TOKEN_INVALID
    return claims if at < claims.expires_at else TokenRefusal.TOKEN_EXPIRED
