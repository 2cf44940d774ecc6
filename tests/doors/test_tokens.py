"""Signed codes: only the diagonal passes, only as we spell them, and nothing ever raises."""

import base64
import hashlib
import hmac
import json
import re
import string
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from app.doors.rules import Reason
from app.doors.tokens import (
    CLOCK_SLACK,
    DISPLAY_GRACE,
    DISPLAY_PERIOD,
    MAX_LENGTH,
    PASS_LIFETIME,
    DisplayClaims,
    PassClaims,
    PosterClaims,
    SigningKey,
    TokenKind,
    TokenRefusal,
    VerifyingKey,
    generate_key,
    jwk,
    kind_of,
    private_bytes,
    public_bytes,
    sign_display,
    sign_pass,
    sign_poster,
    signing_key,
    verify_display,
    verify_pass,
    verify_poster,
    verifying_key,
)

INVALID, EXPIRED, WRONG_KIND = (
    TokenRefusal.TOKEN_INVALID,
    TokenRefusal.TOKEN_EXPIRED,
    TokenRefusal.WRONG_KIND,
)
AT = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DOOR, STATION, WORKER = "k7m2p9qa", "0192f0c1-7b1a-7c3e-8f00-0123456789ab", "3735928559"
DISPLAY_LIFETIME = DISPLAY_PERIOD + DISPLAY_GRACE
TYPS = {"poster": "poster+jwt", "display": "door+jwt", "pass": "pass+jwt"}

SIGNING = {
    kind: SigningKey(kid, kind, Ed25519PrivateKey.generate())
    for kind, kid in zip(TokenKind, ("pq2x7", "dm4ya", "wk7bc"), strict=True)
}
KEYS = {
    key.kid: VerifyingKey(key.kid, key.kind, key.private_key.public_key())
    for key in SIGNING.values()
}
POSTER_KEY = SIGNING[TokenKind.POSTER]

GOOD = {
    TokenKind.POSTER: sign_poster(POSTER_KEY, door=DOOR, generation=3),
    TokenKind.DISPLAY: sign_display(
        SIGNING[TokenKind.DISPLAY],
        door=DOOR,
        issued_at=AT,
        expires_at=AT + DISPLAY_LIFETIME,
        jti="j1",
    ),
    TokenKind.PASS: sign_pass(
        SIGNING[TokenKind.PASS],
        station=STATION,
        worker=WORKER,
        issued_at=AT,
        expires_at=AT + PASS_LIFETIME,
        jti="j2",
    ),
}
CLAIMS: dict[TokenKind, Any] = {
    TokenKind.POSTER: PosterClaims(DOOR, 3),
    TokenKind.DISPLAY: DisplayClaims(DOOR, AT, AT + DISPLAY_LIFETIME, "j1"),
    TokenKind.PASS: PassClaims(STATION, WORKER, AT, AT + PASS_LIFETIME, "j2"),
}
VERIFY: dict[TokenKind, Callable[[str], Any]] = {
    TokenKind.POSTER: lambda token: verify_poster(KEYS, token),
    TokenKind.DISPLAY: lambda token: verify_display(KEYS, token, AT),
    TokenKind.PASS: lambda token: verify_pass(KEYS, token, AT, audience=STATION),
}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def unb64(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def forge(
    header: dict[str, Any] | bytes,
    claims: dict[str, Any] | bytes,
    sign: Callable[[bytes], bytes] = POSTER_KEY.private_key.sign,
) -> str:
    """Write a token by hand, with a good signature unless told otherwise."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()
        for part in (header, claims)
    ]
    body = ".".join(b64(part) for part in parts)
    return f"{body}.{b64(sign(body.encode()))}"


HEADER = {"alg": "EdDSA", "kid": POSTER_KEY.kid, "typ": "poster+jwt"}
POSTER = {"d": DOOR, "g": 3}


def refusals(token: str) -> set[Any]:
    return {verify(token) for verify in VERIFY.values()}


def test_what_we_forge_by_hand_is_good_when_nothing_is_wrong_with_it() -> None:
    assert verify_poster(KEYS, forge(HEADER, POSTER)) == PosterClaims(DOOR, 3)


# The three kinds


@pytest.mark.parametrize("shown", TokenKind)
@pytest.mark.parametrize("wanted", TokenKind)
def test_only_the_diagonal_passes(shown: TokenKind, wanted: TokenKind) -> None:
    expected = CLAIMS[shown] if shown is wanted else WRONG_KIND
    assert VERIFY[wanted](GOOD[shown]) == expected


@pytest.mark.parametrize("kind", TokenKind)
def test_the_kind_of_a_token_can_be_read(kind: TokenKind) -> None:
    assert kind_of(GOOD[kind]) is kind


@pytest.mark.parametrize("signer", TokenKind)
@pytest.mark.parametrize("claimed", TokenKind)
@pytest.mark.parametrize("content", TokenKind)
def test_a_key_does_not_sign_for_another_kind(
    signer: TokenKind, claimed: TokenKind, content: TokenKind
) -> None:
    """Even the holder of one kind's key cannot make a token of another."""
    header = {"alg": "EdDSA", "kid": SIGNING[signer].kid, "typ": TYPS[claimed.value]}
    claims = json.loads(unb64(GOOD[content].split(".")[1]))
    token = forge(header, claims, SIGNING[signer].private_key.sign)
    for wanted, verify in VERIFY.items():
        if signer is claimed is content is wanted:
            assert verify(token) == CLAIMS[wanted]
        else:
            assert isinstance(verify(token), TokenRefusal)


@pytest.mark.parametrize("kind", TokenKind)
def test_a_key_refuses_to_sign_another_kind(kind: TokenKind) -> None:
    if kind is not TokenKind.POSTER:
        with pytest.raises(ValueError, match="does not sign a poster"):
            sign_poster(SIGNING[kind], door=DOOR, generation=1)
    if kind is not TokenKind.DISPLAY:
        with pytest.raises(ValueError, match="does not sign a display"):
            sign_display(SIGNING[kind], door=DOOR, issued_at=AT, expires_at=AT + SECOND, jti="j")
    if kind is not TokenKind.PASS:
        with pytest.raises(ValueError, match="does not sign a pass"):
            sign_pass(
                SIGNING[kind],
                station=STATION,
                worker=WORKER,
                issued_at=AT,
                expires_at=AT + SECOND,
                jti="j",
            )


def test_every_refusal_is_a_reason_of_a_scan() -> None:
    assert {refusal.value for refusal in TokenRefusal} <= {reason.value for reason in Reason}


# Algorithms (promises T05)


def _pem() -> bytes:
    return POSTER_KEY.private_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _hmac(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda body: hmac.digest(secret, body, hashlib.sha256)


def _by_library(algorithm: str, key: Any) -> str:
    return jwt.encode(
        POSTER, key, algorithm=algorithm, headers={"kid": POSTER_KEY.kid, "typ": "poster+jwt"}
    )


def _algorithms() -> dict[str, str]:
    good = POSTER_KEY.private_key.sign
    raw = public_bytes(POSTER_KEY)
    ed448_key = ed448.Ed448PrivateKey.generate()
    matrix = {
        f"{name} {signed}": forge(HEADER | {"alg": name}, POSTER, sign)
        for name in ("none", "None", "NONE", "HS256", "RS256", "ES256", "Ed25519", "eddsa", "")
        for signed, sign in {
            "unsigned": lambda body: b"",
            "zeros": lambda body: bytes(64),
            "rightly": good,
            "hmac of pem": _hmac(_pem()),
            "hmac of x": _hmac(raw),
            "twice hmac of x": lambda body: _hmac(raw)(body) * 2,
        }.items()
    }
    return matrix | {
        "missing alg": forge({"kid": POSTER_KEY.kid, "typ": "poster+jwt"}, POSTER),
        "null alg": forge(HEADER | {"alg": None}, POSTER),
        "list alg": forge(HEADER | {"alg": ["EdDSA"]}, POSTER),
        "rs256": _by_library("RS256", rsa.generate_private_key(65537, 2048)),
        "es256": _by_library("ES256", ec.generate_private_key(ec.SECP256R1())),
        "ed448": forge(HEADER, POSTER, ed448_key.sign),
        "ed448 cut": forge(HEADER, POSTER, lambda body: ed448_key.sign(body)[:64]),
        "hmac as eddsa": forge(HEADER, POSTER, lambda body: _hmac(raw)(body) * 2),
        "other key": forge(HEADER, POSTER, Ed25519PrivateKey.generate().sign),
    }


ALGORITHMS = _algorithms()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_one_algorithm_and_one_key_pass(name: str) -> None:
    assert refusals(ALGORITHMS[name]) == {INVALID}
    head = json.loads(unb64(ALGORITHMS[name].split(".")[0]))
    assert kind_of(ALGORITHMS[name]) is None or head["alg"] == "EdDSA"


# Headers (promises T06, T09)


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"crit": []},
        {"b64": True},
        {"cty": "JWT"},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"x5c": ["MII"]},
        {"x5t": "abc"},
        {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AA"}},
        {"typ": "JWT"},
        {"typ": "poster+JWT"},
        {"typ": "application/poster+jwt"},
        {"typ": None},
        {"typ": ["poster+jwt"]},
        {"typ": {}},
        {"kid": None},
        {"kid": 1},
        {"kid": ""},
        {"kid": "nobody"},
        {"kid": "PQ2X7"},
        {"kid": "pq2x7\n"},
        {"kid": "../../dev/null"},
        {"kid": "' OR 1=1--"},
        {"kid": "pq2x7\x00"},
        {"kid": "a" * 9},
        {"kid": "a" * 1_000_000},
        {"kid": [POSTER_KEY.kid]},
    ],
    ids=lambda extra: json.dumps(extra)[:40],
)
def test_a_header_says_alg_kid_and_typ_and_nothing_else(extra: dict[str, Any]) -> None:
    assert refusals(forge(HEADER | extra, POSTER)) == {INVALID}


@pytest.mark.parametrize("name", ["alg", "kid", "typ"])
def test_a_header_lacks_nothing(name: str) -> None:
    header = {key: value for key, value in HEADER.items() if key != name}
    assert refusals(forge(header, POSTER)) == {INVALID}


def test_the_key_that_a_token_brings_along_is_not_believed() -> None:
    theirs = generate_key(TokenKind.POSTER)
    header = HEADER | {"jwk": jwk(verifying_key(theirs.kid, theirs.kind, public_bytes(theirs)))}
    assert refusals(forge(header, POSTER, theirs.private_key.sign)) == {INVALID}


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe{}", b"[" * 140]
)
def test_a_header_that_is_no_object_is_refused(raw: bytes) -> None:
    assert refusals(forge(raw, POSTER)) == {INVALID}
    assert kind_of(forge(raw, POSTER)) is None


@given(st.text())
def test_no_kid_finds_a_key_that_is_not_its_own(kid: str) -> None:
    """A `kid` is looked up in memory and nowhere else."""
    asked: list[str] = []

    class Watched(dict[str, VerifyingKey]):
        def get(self, key: str, default: Any = None) -> Any:
            asked.append(key)
            return super().get(key, default)

    found = verify_poster(Watched(KEYS), forge(HEADER | {"kid": kid}, POSTER))
    assert found == (PosterClaims(DOOR, 3) if kid == POSTER_KEY.kid else INVALID)
    assert all(re.fullmatch(r"[a-z0-9]{1,8}", key) for key in asked)


# Spelling (promises T08)


def test_an_ill_formed_text_never_reaches_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    decode = jwt.decode

    def watched(token: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(token)
        return decode(token, *args, **kwargs)

    monkeypatch.setattr(jwt, "decode", watched)
    good = GOOD[TokenKind.POSTER]
    head, body, signature = good.split(".")
    for token in (
        "",
        ".",
        "..",
        "...",
        good + "==",
        good + "=",
        good + "\n",
        " " + good,
        good + ".",
        f"{head}.{body}",
        f"{head}.{body}.",
        f"{head}..{signature}",
        f"{head}=.{body}.{signature}",
        f"{head}.{body}.{signature}.{signature}",
        f"{head}.{body}.{signature[:-1]}",
        good.replace(".", "\uff0e"),
        good[:-1] + "\uff21",
        good.replace(head, head + "+"),
        "a" * (MAX_LENGTH + 1),
        f"{head}.{body}.{'A' * (MAX_LENGTH + 1)}",
        f"{head}.{'A' * (MAX_LENGTH - len(head) - len(signature) - 1)}.{signature}",
        "." * 2_000_000,
        "\ud800",
        "\x00",
    ):
        assert refusals(token) == {INVALID}
        assert kind_of(token) is None
    assert seen == []
    assert verify_poster(KEYS, good) == PosterClaims(DOOR, 3)
    assert seen == [good]


def test_a_token_of_1025_characters_is_refused_whoever_signed_it() -> None:
    """Spaces in the signed texts bring a good token to any length."""
    header, claims = json.dumps(HEADER).encode(), json.dumps(POSTER).encode()
    longest = forge(header.ljust(150), claims.ljust(552))
    too_long = forge(header.ljust(149), claims.ljust(553))
    assert (len(longest), len(too_long)) == (1024, 1025)
    assert verify_poster(KEYS, longest) == PosterClaims(DOOR, 3)
    assert refusals(too_long) == {INVALID}
    assert kind_of(too_long) is None


def test_one_token_has_one_spelling() -> None:
    """The last character of a part may hold bits that mean nothing; they must be zero."""
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    tried = 0
    for token in GOOD.values():
        for number, part in enumerate(token.split(".")):
            for character in alphabet:
                variant = part[:-1] + character
                if variant != part and unb64(variant) == unb64(part):
                    parts = token.split(".")
                    parts[number] = variant
                    assert refusals(".".join(parts)) == {INVALID}
                    assert kind_of(".".join(parts)) is None
                    tried += 1
    assert tried >= 9 * 3


def test_a_signature_has_one_form() -> None:
    """Adding the order of the group to the second half of a signature changes nothing in theory."""
    order = 2**252 + 27742317777372353535851937790883648493

    def shifted(body: bytes) -> bytes:
        made = POSTER_KEY.private_key.sign(body)
        return made[:32] + (int.from_bytes(made[32:], "little") + order).to_bytes(32, "little")

    assert refusals(forge(HEADER, POSTER, shifted)) == {INVALID}


@given(
    st.sampled_from(list(TokenKind)),
    st.integers(0, 400),
    st.sampled_from(["replace", "insert", "delete", "swap"]),
    st.one_of(st.sampled_from(string.printable), st.characters()),
)
def test_whatever_is_changed_in_a_token_spoils_it(
    kind: TokenKind, place: int, act: str, character: str
) -> None:
    good = GOOD[kind]
    place %= len(good)
    changed = {
        "replace": good[:place] + character + good[place + 1 :],
        "insert": good[:place] + character + good[place:],
        "delete": good[:place] + good[place + 1 :],
        "swap": good[:place] + good[place : place + 2][::-1] + good[place + 2 :],
    }[act]
    if changed != good:
        assert refusals(changed) == {INVALID}
        assert kind_of(changed) in (*TokenKind, None)


@given(st.sampled_from(list(TokenKind)), st.integers(0, 2), st.integers(0, 799), st.integers(0, 7))
def test_every_bit_of_a_token_counts(kind: TokenKind, number: int, place: int, bit: int) -> None:
    parts = GOOD[kind].split(".")
    raw = bytearray(unb64(parts[number]))
    raw[place % len(raw)] ^= 1 << bit
    parts[number] = b64(bytes(raw))
    assert refusals(".".join(parts)) == {INVALID}


@given(st.one_of(st.text(), st.from_regex(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}\Z")))
def test_any_text_at_all_is_answered(text: str) -> None:
    assert refusals(text) == {INVALID}
    assert kind_of(text) is None


# Claims (promises T07)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from("dgijx") | st.text(max_size=5), JSON, max_size=4))
def test_claims_of_any_shape_are_answered(claims: dict[str, Any]) -> None:
    found = verify_poster(KEYS, forge(HEADER, claims))
    if isinstance(found, PosterClaims):
        assert set(claims) == {"d", "g"}
    else:
        assert found is INVALID


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"d": DOOR},
        {"g": 3},
        {"d": DOOR, "g": "3"},
        {"d": DOOR, "g": 3.0},
        {"d": DOOR, "g": True},
        {"d": DOOR, "g": -1},
        {"d": DOOR, "g": 2**31},
        {"d": DOOR, "g": None},
        {"d": 7, "g": 3},
        {"d": "", "g": 3},
        {"d": "a b", "g": 3},
        {"d": "a\x00", "g": 3},
        {"d": "a" * 65, "g": 3},
        {"d": [DOOR], "g": 3},
        {"d": DOOR, "g": 3, "exp": 4102444800},
        {"d": DOOR, "g": 3, "iss": "us"},
        {"d": DOOR, "g": 3, "nbf": 0},
        {"d": DOOR, "g": 3, "aud": STATION},
        {"d": DOOR, "g": 3, "x": None},
    ],
    ids=json.dumps,
)
def test_a_poster_carries_its_two_claims_and_nothing_else(claims: dict[str, Any]) -> None:
    assert verify_poster(KEYS, forge(HEADER, claims)) is INVALID


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"7", b'{"d":"a","g":1', b"\xff", b"[" * 500])
def test_claims_that_are_no_object_are_refused(raw: bytes) -> None:
    assert refusals(forge(HEADER, raw)) == {INVALID}


NOW = int(AT.timestamp())


def timed(kind: TokenKind, changes: dict[str, Any], without: str = "") -> str:
    claims = json.loads(unb64(GOOD[kind].split(".")[1])) | changes
    claims.pop(without, None)
    header = {"alg": "EdDSA", "kid": SIGNING[kind].kid, "typ": TYPS[kind.value]}
    return forge(header, claims, SIGNING[kind].private_key.sign)


@pytest.mark.parametrize("kind", [TokenKind.DISPLAY, TokenKind.PASS])
@pytest.mark.parametrize("name", ["iat", "exp"])
@pytest.mark.parametrize(
    "value",
    [str(NOW), float(NOW), NOW + 0.5, True, None, [NOW], 0, -1, 10**9, 10**18, -(10**18), 10**300],
    ids=repr,
)
def test_a_time_is_whole_seconds_within_the_life_of_its_kind(
    kind: TokenKind, name: str, value: Any
) -> None:
    assert VERIFY[kind](timed(kind, {name: value})) is INVALID


@pytest.mark.parametrize("kind", [TokenKind.DISPLAY, TokenKind.PASS])
@pytest.mark.parametrize("name", ["d", "aud", "sub", "iat", "exp", "jti"])
def test_a_timed_token_lacks_nothing(kind: TokenKind, name: str) -> None:
    claims = json.loads(unb64(GOOD[kind].split(".")[1]))
    if name in claims:
        assert VERIFY[kind](timed(kind, {}, without=name)) is INVALID
    else:
        assert VERIFY[kind](timed(kind, {name: "x"})) is INVALID


@pytest.mark.parametrize("kind", [TokenKind.DISPLAY, TokenKind.PASS])
@pytest.mark.parametrize("value", ["", "a b", 7, None, ["j"], "j" * 65], ids=repr)
def test_a_token_is_named_by_a_short_word(kind: TokenKind, value: Any) -> None:
    assert VERIFY[kind](timed(kind, {"jti": value})) is INVALID


@pytest.mark.parametrize("audience", ["", "YZ-0012", STATION + "0", [STATION], [STATION, "x"]])
def test_a_pass_is_good_at_one_station(audience: Any) -> None:
    assert verify_pass(KEYS, timed(TokenKind.PASS, {"aud": audience}), AT, audience=STATION) is (
        INVALID
    )
    assert verify_pass(KEYS, GOOD[TokenKind.PASS], AT, audience=str(audience)) is INVALID


def test_an_expired_pass_of_another_station_does_not_tell_that_it_expired() -> None:
    later = AT + timedelta(days=1)
    assert verify_pass(KEYS, GOOD[TokenKind.PASS], later, audience="elsewhere") is INVALID


# Times (promises T02)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (-CLOCK_SLACK - timedelta(microseconds=1), INVALID),
        (-CLOCK_SLACK, None),
        (timedelta(0), None),
        (44 * SECOND, None),
        (45 * SECOND - timedelta(microseconds=1), None),
        (45 * SECOND, EXPIRED),
        (46 * SECOND, EXPIRED),
        (timedelta(days=3650), EXPIRED),
    ],
)
def test_a_display_code_is_good_from_its_issue_until_just_before_its_end(
    after: timedelta, expected: TokenRefusal | None
) -> None:
    found = verify_display(KEYS, GOOD[TokenKind.DISPLAY], AT + after)
    assert found == (expected or CLAIMS[TokenKind.DISPLAY])


@pytest.mark.parametrize(
    ("after", "expected"),
    [(-6 * SECOND, INVALID), (59 * SECOND, None), (60 * SECOND, EXPIRED), (61 * SECOND, EXPIRED)],
)
def test_a_pass_is_good_for_a_minute(after: timedelta, expected: TokenRefusal | None) -> None:
    found = verify_pass(KEYS, GOOD[TokenKind.PASS], AT + after, audience=STATION)
    assert found == (expected or CLAIMS[TokenKind.PASS])


@given(st.integers(-200, 200), st.integers(-200, 200), st.integers(-400, 400))
def test_what_is_accepted_is_never_older_than_a_window(issued: int, life: int, asked: int) -> None:
    token = timed(TokenKind.DISPLAY, {"iat": NOW + issued, "exp": NOW + issued + life})
    at = AT + asked * SECOND
    found = verify_display(KEYS, token, at)
    if isinstance(found, DisplayClaims):
        assert -CLOCK_SLACK <= at - found.issued_at < DISPLAY_LIFETIME
        assert at < found.expires_at
    else:
        assert not (0 < life <= 45 and -5 <= asked - issued < life)


def test_a_poster_never_expires() -> None:
    """Its door's generation revokes it."""
    assert b"exp" not in unb64(GOOD[TokenKind.POSTER].split(".")[1])


# What we sign, we accept


@pytest.mark.parametrize("door", ["", "a b", "门", "a" * 65, "a.b"])
def test_a_name_that_no_validator_takes_is_not_signed(door: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        sign_poster(POSTER_KEY, door=door, generation=1)


@pytest.mark.parametrize("generation", [-1, 2**31, True])
def test_a_generation_that_no_validator_takes_is_not_signed(generation: int) -> None:
    with pytest.raises(ValueError, match="not a count"):
        sign_poster(POSTER_KEY, door=DOOR, generation=generation)


@pytest.mark.parametrize("life", [timedelta(0), -SECOND, DISPLAY_LIFETIME + SECOND])
def test_a_display_code_of_another_length_is_not_signed(life: timedelta) -> None:
    with pytest.raises(ValueError, match="not a lifetime"):
        sign_display(
            SIGNING[TokenKind.DISPLAY], door=DOOR, issued_at=AT, expires_at=AT + life, jti="j"
        )


def test_tokens_are_short() -> None:
    """They go into a code that a cheap phone reads in the rain."""
    head, body, _ = GOOD[TokenKind.POSTER].split(".")
    assert json.loads(unb64(head)) == HEADER
    assert unb64(head).count(b" ") == unb64(body).count(b" ") == 0
    assert len(GOOD[TokenKind.POSTER]) <= 185


# Keys


@pytest.mark.parametrize("kind", TokenKind)
def test_a_key_is_found_by_a_short_random_name(kind: TokenKind) -> None:
    made = [generate_key(kind) for _ in range(50)]
    assert all(re.fullmatch(r"[a-z2-7]{4,6}", key.kid) and key.kind is kind for key in made)
    assert len({key.kid for key in made}) > 45
    assert len({private_bytes(key) for key in made}) == 50


def test_a_key_survives_storage() -> None:
    raw = private_bytes(POSTER_KEY)
    assert len(raw) == 32
    again = signing_key(POSTER_KEY.kid, TokenKind.POSTER, raw)
    assert sign_poster(again, door=DOOR, generation=3) == GOOD[TokenKind.POSTER]
    public = verifying_key(again.kid, again.kind, public_bytes(again))
    assert verify_poster({again.kid: public}, GOOD[TokenKind.POSTER]) == PosterClaims(DOOR, 3)


def test_a_public_key_is_published_without_its_private_half() -> None:
    published = jwk(KEYS[POSTER_KEY.kid])
    assert {name: published[name] for name in ("kty", "crv", "use", "alg", "kid")} == {
        "kty": "OKP",
        "crv": "Ed25519",
        "use": "sig",
        "alg": "EdDSA",
        "kid": POSTER_KEY.kid,
    }
    assert "d" not in published
    assert unb64(published["x"]) == public_bytes(POSTER_KEY)
    claims = jwt.decode(GOOD[TokenKind.POSTER], jwt.PyJWK(published), algorithms=["EdDSA"])
    assert claims == POSTER


@pytest.mark.parametrize("kind", TokenKind)
def test_a_key_under_another_kind_or_name_opens_nothing(kind: TokenKind) -> None:
    key = KEYS[SIGNING[kind].kid]
    for other in set(TokenKind) - {kind}:
        swapped = {key.kid: replace(key, kind=other)}
        assert verify_poster(swapped, GOOD[kind]) is INVALID
    assert verify_poster({}, GOOD[kind]) is INVALID
