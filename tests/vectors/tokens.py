"""Tokens of all three kinds that must pass, and those that must fail, with the reason."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.doors.tokens import MAX_LENGTH, TYP, TokenKind, jwk, verifying_key

AT = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)
NOW = int(AT.timestamp())
DOOR = "k7m2p9qa"
STATION = "0192f0c1-7b1a-7c3e-8f00-0123456789ab"
WORKER = "3735928559"
KIDS = {TokenKind.POSTER: "pq2x7", TokenKind.DISPLAY: "dm4ya", TokenKind.PASS: "wk7bc"}

Signer = Callable[[bytes], bytes]


def _private(name: str) -> Ed25519PrivateKey:
    """Make a key that is the same in every run; it signs nothing but vectors."""
    seed = hashlib.sha256(f"yizhan test vectors: {name}".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


PRIVATE = {kind: _private(kind.value) for kind in TokenKind}
PUBLIC = {kind: key.public_key().public_bytes_raw() for kind, key in PRIVATE.items()}
STRANGER = _private("stranger")
JWKS = [jwk(verifying_key(KIDS[kind], kind, PUBLIC[kind])) for kind in TokenKind]

CLAIMS: dict[TokenKind, dict[str, Any]] = {
    TokenKind.POSTER: {"d": DOOR, "g": 3},
    TokenKind.DISPLAY: {"d": DOOR, "iat": NOW - 10, "exp": NOW + 35, "jti": "j1"},
    TokenKind.PASS: {
        "aud": STATION,
        "sub": WORKER,
        "iat": NOW - 10,
        "exp": NOW + 50,
        "jti": "j2",
    },
}
LIFE_S = {TokenKind.DISPLAY: 45, TokenKind.PASS: 60}


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def unb64(part: str) -> bytes:
    """Read base64 as tokens and keys spell it: URL-safe, without padding."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _json(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def _header(kind: TokenKind, **changes: Any) -> dict[str, Any]:
    """Write a header; a value of `...` leaves the name out."""
    header = {"alg": "EdDSA", "kid": KIDS[kind], "typ": TYP[kind]} | changes
    return {name: value for name, value in header.items() if value is not ...}


def _token(
    kind: TokenKind,
    *,
    header: Any = None,
    claims: Any = None,
    sign: Signer | None = None,
) -> str:
    """Write a token by hand; what is not named is as it should be."""
    parts = (header or _header(kind), CLAIMS[kind] if claims is None else claims)
    body = ".".join(_b64(_json(part)) for part in parts)
    return f"{body}.{_b64((sign or PRIVATE[kind].sign)(body.encode()))}"


def _claims(kind: TokenKind, **changes: Any) -> dict[str, Any]:
    claims = CLAIMS[kind] | changes
    return {name: value for name, value in claims.items() if value is not ...}


def _good(name: str, kind: TokenKind, token: str, claims: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "ask": kind.value, "token": token, "valid": True, "claims": claims}


def _bad(name: str, kind: TokenKind, token: str, reason: str = "token_invalid") -> dict[str, Any]:
    return {"name": name, "ask": kind.value, "token": token, "valid": False, "reason": reason}


def vectors() -> dict[str, Any]:
    """Give the whole file."""
    found: list[dict[str, Any]] = []
    for kind in TokenKind:
        found += _of_any_kind(kind)
    found += _times(TokenKind.DISPLAY) + _times(TokenKind.PASS)
    found += _posters() + _passes()
    return {
        "about": (
            "Ask the validator of the kind `ask` whether `token` is good at `now`, with these keys,"
            " a pass at the station `audience`. `valid` and `claims`, or `reason`, is the answer."
            " The keys sign nothing but this file."
        ),
        "now": AT.isoformat(),
        "now_s": NOW,
        "audience": STATION,
        "max_length": MAX_LENGTH,
        "jwks": {"keys": JWKS},
        "vectors": found,
    }


def _of_any_kind(kind: TokenKind) -> list[dict[str, Any]]:
    """What every validator must see: spelling, header, algorithm, signature, kind."""
    name = kind.value
    good = _token(kind)
    head, body, signature = good.split(".")
    found = [_good(f"{name}: as it should be", kind, good, CLAIMS[kind])]
    for other in TokenKind:
        if other is not kind:
            found += [
                _bad(f"{name}: a {other.value} is shown", kind, _token(other), "wrong_kind"),
                _bad(
                    f"{name}: kid of the {other.value} key",
                    kind,
                    _token(kind, header=_header(kind, kid=KIDS[other])),
                ),
                _bad(
                    f"{name}: typ of a {other.value}",
                    kind,
                    _token(kind, header=_header(kind, typ=TYP[other])),
                ),
                _bad(
                    f"{name}: signed by the {other.value} key under this kind's kid",
                    kind,
                    _token(kind, sign=PRIVATE[other].sign),
                ),
                _bad(
                    f"{name}: this kind's key over the claims of a {other.value}",
                    kind,
                    _token(kind, claims=CLAIMS[other]),
                ),
            ]
    for what, header in _headers(kind).items():
        found.append(_bad(f"{name}: {what}", kind, _token(kind, header=header)))
    for what, token in _algorithms(kind).items():
        found.append(_bad(f"{name}: {what}", kind, token))
    for what, token in {
        'padding "==" added': good + "==",
        'padding "=" inside': f"{head}=.{body}.{signature}",
        "a newline at the end": good + "\n",
        "a space in front": " " + good,
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "four parts": f"{good}.{signature}",
        "a signature one character short": good[:-1],
        "not ASCII: a full-width letter": good[:-1] + "\uff21",
        "not ASCII: a full-width dot": good.replace(".", "\uff0e", 1),
        "standard instead of URL-safe alphabet": f"{head}+.{body}.{signature}",
        "the same signature, spelled another way": _respelled(good),
        "over 1,024 characters, well signed": _longer_than_allowed(kind),
        "header is no object": _token(kind, header=b"[]"),
        "header is no JSON": _token(kind, header=b"{"),
        "claims are no object": _token(kind, claims=b"[]"),
        "claims are no JSON": _token(kind, claims=b"{"),
        "empty text": "",
        "one bit of the claims changed": f"{head}.{_flipped(body)}.{signature}",
        "one bit of the signature changed": f"{head}.{body}.{_flipped(signature)}",
    }.items():
        found.append(_bad(f"{name}: {what}", kind, token))
    for claim in CLAIMS[kind]:
        found.append(
            _bad(f"{name}: no {claim}", kind, _token(kind, claims=_claims(kind, **{claim: ...})))
        )
    found.append(_bad(f"{name}: one claim more", kind, _token(kind, claims=_claims(kind, x=1))))
    return found


def _headers(kind: TokenKind) -> dict[str, Any]:
    return {
        "unknown kid": _header(kind, kid="nobdy"),
        "no kid": _header(kind, kid=...),
        "kid is a number": _header(kind, kid=7),
        "kid in capitals": _header(kind, kid=KIDS[kind].upper()),
        "no typ": _header(kind, typ=...),
        "typ JWT": _header(kind, typ="JWT"),
        "typ in capitals": _header(kind, typ=TYP[kind].upper()),
        "no alg": _header(kind, alg=...),
        "jku": _header(kind, jku="https://evil.example/jwks.json"),
        "x5u": _header(kind, x5u="https://evil.example/cert.pem"),
        "crit": _header(kind, crit=["exp"]),
        "b64 false": _header(kind, crit=["b64"], b64=False),
    }


def _algorithms(kind: TokenKind) -> dict[str, str]:
    public = PUBLIC[kind]
    pem = (
        PRIVATE[kind]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )

    def by(secret: bytes, *, twice: bool = False) -> Signer:
        # Twice, it has the length of a good signature.
        return lambda text: hmac.digest(secret, text, "sha256") * (2 if twice else 1)

    theirs = jwk(verifying_key(KIDS[kind], kind, STRANGER.public_key().public_bytes_raw()))
    return {
        "alg none, unsigned": _token(kind, header=_header(kind, alg="none"), sign=lambda _: b""),
        "alg none, well signed": _token(kind, header=_header(kind, alg="none")),
        "alg HS256, the public key as the secret": _token(
            kind, header=_header(kind, alg="HS256"), sign=by(public)
        ),
        "alg HS256, the public key as PEM as the secret": _token(
            kind, header=_header(kind, alg="HS256"), sign=by(pem)
        ),
        "alg EdDSA, but an HMAC with the public key": _token(kind, sign=by(public, twice=True)),
        "alg Ed25519": _token(kind, header=_header(kind, alg="Ed25519")),
        "signed by a stranger": _token(kind, sign=STRANGER.sign),
        "signed by a stranger who brings his key as jwk": _token(
            kind, header=_header(kind, jwk=theirs), sign=STRANGER.sign
        ),
        "signature of zeros": _token(kind, sign=lambda _: bytes(64)),
    }


def _respelled(token: str) -> str:
    """Set one of the four bits of the last character that carry nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


def _flipped(part: str) -> str:
    raw = bytearray(unb64(part))
    raw[len(raw) // 2] ^= 1
    return _b64(bytes(raw))


def _longer_than_allowed(kind: TokenKind) -> str:
    """Spaces, which JSON ignores, bring a token that is good but for its length beyond it."""
    header, claims = _json(_header(kind)), _json(CLAIMS[kind])
    return _token(kind, header=header.ljust(149), claims=claims.ljust(553))


def _times(kind: TokenKind) -> list[dict[str, Any]]:
    """The edges of a code's life, in whole seconds."""
    life = LIFE_S[kind]

    def issued(age_s: int, lasts_s: int = life) -> dict[str, Any]:
        return _claims(kind, iat=NOW - age_s, exp=NOW - age_s + lasts_s)

    def good(what: str, claims: dict[str, Any]) -> dict[str, Any]:
        return _good(f"{kind.value}: {what}", kind, _token(kind, claims=claims), claims)

    def bad(what: str, claims: Any, reason: str = "token_invalid") -> dict[str, Any]:
        return _bad(f"{kind.value}: {what}", kind, _token(kind, claims=claims), reason)

    found = [
        good("issued this second", issued(0)),
        good("a second before its end", issued(life - 1)),
        bad("expired this very second", issued(life), "token_expired"),
        bad("expired by a second", issued(life + 1), "token_expired"),
        bad("expired a year ago", issued(365 * 86_400), "token_expired"),
        good("issued a second ahead of our clock", issued(-1)),
        good("issued 5 s ahead of our clock, the most", issued(-5)),
        bad("issued 6 s ahead of our clock", issued(-6)),
        bad("issued an hour ahead of our clock", issued(-3600)),
        good("shorter than it might be", issued(0, lasts_s=1)),
        bad("a second longer than its kind may live", issued(0, lasts_s=life + 1)),
        bad("ends when it begins", issued(0, lasts_s=0)),
        bad("ends before it begins", issued(0, lasts_s=-1)),
    ]
    for name in ("iat", "exp"):
        value = CLAIMS[kind][name]
        for what, wrong in {
            "is text": str(value),
            "is a fraction": value + 0.5,
            "is a whole number written as a fraction": float(value),
            "is true": True,
            "is null": None,
            "is a list": [value],
            "is beyond every calendar": 10**18,
        }.items():
            found.append(bad(f"{name} {what}", _claims(kind, **{name: wrong})))
    for what, wrong in {
        "empty": "",
        "a number": 7,
        "with a space": "j 1",
        "of 65 characters": "j" * 65,
    }.items():
        found.append(bad(f"jti {what}", _claims(kind, jti=wrong)))
    return found


def _posters() -> list[dict[str, Any]]:
    kind = TokenKind.POSTER
    wrong: dict[str, dict[str, Any]] = {
        "g is text": {"g": "3"},
        "g is a fraction": {"g": 3.0},
        "g is true": {"g": True},
        "g is negative": {"g": -1},
        "g is 2^31": {"g": 2**31},
        "d is a number": {"d": 7},
        "d is empty": {"d": ""},
        "d has a space": {"d": "a b"},
        "d has 65 characters": {"d": "a" * 65},
        "it has an end": {"exp": NOW + 60},
    }
    return [
        _bad(f"poster: {what}", kind, _token(kind, claims=_claims(kind, **changes)))
        for what, changes in wrong.items()
    ]


def _passes() -> list[dict[str, Any]]:
    kind = TokenKind.PASS
    late = {"iat": NOW - 600, "exp": NOW - 540}
    wrong: dict[str, dict[str, Any]] = {
        "aud is another station": {"aud": "0192f0c1-7b1a-7c3e-8f00-ffffffffffff"},
        "aud is another station, and it is expired": {
            "aud": "0192f0c1-7b1a-7c3e-8f00-ffffffffffff",
            **late,
        },
        "aud is this station and a character more": {"aud": STATION + "0"},
        "aud in capitals": {"aud": STATION.upper()},
        "aud is a list with this station": {"aud": [STATION]},
        "aud is empty": {"aud": ""},
        "sub is a number": {"sub": 3735928559},
        "sub is empty": {"sub": ""},
    }
    return [
        _bad(f"pass: {what}", kind, _token(kind, claims=_claims(kind, **changes)))
        for what, changes in wrong.items()
    ]
