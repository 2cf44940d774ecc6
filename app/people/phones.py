"""Mobile numbers: normalise, find blindly, seal. Pure; keys are arguments (promises 4)."""

import hmac
import re
import secrets
import unicodedata

import phonenumbers
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HEADER = b"\x01\x01"
"""Algorithm 1 is AES-256-GCM with a random 96-bit nonce; key version 1."""

_NONCE_BYTES = 12
_SPELLING = re.compile(r"\+?[0-9 ().\u2010-\u2015-]{1,40}")
_INVISIBLE = "Cf"
"""Marks of direction, which come along when a number is copied from a phone's contacts."""


class NotAPhone(ValueError):
    """This is not a telephone number."""


def normalise(text: str) -> str:
    """Write a number as E.164, read as a Chinese one unless it says otherwise.

    Full-width digits, spaces, dashes and brackets are read; words are not, although the library
    would dial letters and pick a number out of a sentence, and a code would go to a stranger.
    Raises NotAPhone with a plain sentence when the text is no number at all.
    """
    seen = "".join(c for c in text if unicodedata.category(c) != _INVISIBLE)
    spelled = unicodedata.normalize("NFKC", seen).strip()
    if not _SPELLING.fullmatch(spelled):
        raise NotAPhone("this is not a telephone number")
    try:
        number = phonenumbers.parse(spelled, "CN")
    except phonenumbers.NumberParseException as error:
        raise NotAPhone("this is not a telephone number") from error
    if not phonenumbers.is_possible_number(number):
        raise NotAPhone("this is not a telephone number")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def is_served(phone: str) -> bool:
    """Whether a code may be sent there: a valid mobile number of +86 (threat T12)."""
    number = phonenumbers.parse(phone)
    return (
        number.country_code == 86
        and phonenumbers.is_valid_number(number)
        and phonenumbers.number_type(number) == phonenumbers.PhoneNumberType.MOBILE
    )


def blind_index(key: bytes, phone: str) -> bytes:
    """Give what finds a number without revealing it: 32 bytes of HMAC-SHA256."""
    return hmac.digest(key, b"phone:" + phone.encode(), "sha256")


def seal(key: bytes, phone: str, *, aad: str) -> bytes:
    """Encrypt a number, bound to the row `aad` names."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return HEADER + nonce + AESGCM(key).encrypt(nonce, phone.encode(), HEADER + aad.encode())


def unseal(key: bytes, sealed: bytes, *, aad: str) -> str:
    """Decrypt a number; raises cryptography's InvalidTag for another row or key."""
    nonce, text = sealed[2 : 2 + _NONCE_BYTES], sealed[2 + _NONCE_BYTES :]
    return AESGCM(key).decrypt(nonce, text, sealed[:2] + aad.encode()).decode()


def mask(phone: str) -> str:
    """Show a number so that its owner knows it and nobody else does: 138****1234."""
    national = phone.removeprefix("+86")
    return f"{national[:3]}****{national[-4:]}"
