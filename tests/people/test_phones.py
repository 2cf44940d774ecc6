"""Numbers: one spelling, found blindly, sealed to their row."""

import hashlib
import hmac

import phonenumbers
import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from app.people.phones import (
    HEADER,
    NotAPhone,
    blind_index,
    is_served,
    mask,
    normalise,
    seal,
    unseal,
)

PHONE = "+8613800138000"
KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
ROW = "worker|phone|0192f0c1|1"

MOBILES = st.tuples(
    st.sampled_from(["130", "138", "147", "150", "159", "166", "176", "188", "191", "198", "199"]),
    st.integers(0, 10**8 - 1),
).map(lambda parts: f"{parts[0]}{parts[1]:08}")


@pytest.mark.parametrize(
    "text",
    [
        "13800138000",
        " 13800138000 ",
        "138 0013 8000",
        "138-0013-8000",
        "138\u20130013\u20138000",
        "(138) 0013.8000",
        "１３８００１３８０００",
        "＋８６　１３８００１３８０００",
        "1380013８０００",
        "+8613800138000",
        "+86 138 0013 8000",
        "+86-13800138000",
        "008613800138000",
        "0086 138 0013 8000",
        "8613800138000",
        "\u202d13800138000\u202c",
        "\u200b13800138000",
        "138\u00a00013\u00a08000",
    ],
)
def test_a_number_has_one_spelling(text: str) -> None:
    assert normalise(text) == PHONE


@given(MOBILES, st.sampled_from(["", "+86", "+86 ", "0086", "86"]), st.data())
def test_however_it_is_written_a_mobile_number_is_the_same(
    digits: str, prefix: str, data: st.DataObject
) -> None:
    gaps = data.draw(st.lists(st.sampled_from(["", " ", "-"]), min_size=10, max_size=10))
    spaced = digits[0] + "".join(map("".join, zip(gaps, digits[1:], strict=True)))
    wide = "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in spaced)
    assert normalise(prefix + spaced) == normalise(prefix + wide) == f"+86{digits}"
    assert is_served(f"+86{digits}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "+",
        "--",
        "1",
        "110",
        "not a number",
        "13800TESTME",
        "my phone is 13800138000",
        "13800138000 ext 5",
        "13800138000x5",
        "13800138000;isub=1",
        "tel:+8613800138000",
        "13800138000/13900139000",
        "13800138000 13900139000",
        "13800138000,13900139000",
        "13800138000\x00",
        "13800138000\n1",
        "+86+13800138000",
        "++8613800138000",
        "138001380000000",
        "1" * 300,
        "一三八〇〇一三八〇〇〇",
        "\ud800",
    ],
    ids=ascii,
)
def test_what_is_no_number_is_refused_in_a_plain_sentence(text: str) -> None:
    with pytest.raises(NotAPhone, match=r"^this is not a telephone number$"):
        normalise(text)


@given(st.text())
def test_any_text_is_a_number_or_is_refused(text: str) -> None:
    try:
        phone = normalise(text)
    except ValueError:
        return
    assert phone.startswith("+")
    assert phone[1:].isascii()
    assert phone[1:].isdigit()


@pytest.mark.parametrize(
    "text",
    [
        "023-63850000",
        "010 6512 3456",
        "+86 23 63850000",
        "400-810-8888",
        "10086",
        "14012345678",
        "1380013800",
        "10012345678",
        "+852 9123 4567",
        "+853 6612 3456",
        "+886 912 345 678",
        "+1 202 555 0123",
        "+232 76 123456",
        "+81 90 1234 5678",
        "+44 7400 123456",
    ],
)
def test_no_code_goes_to_a_landline_or_abroad(text: str) -> None:
    """Its asker gets the same answer as everybody (threat T12)."""
    assert not is_served(normalise(text))


@pytest.mark.parametrize("region", ["US", "GB", "SL", "HK", "MO", "TW", "JP", "IN", "RU"])
def test_no_code_goes_to_the_mobile_numbers_of_another_country(region: str) -> None:
    number = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
    assert number is not None
    text = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    assert not is_served(normalise(text))


def test_the_index_is_the_same_for_the_same_number_and_key_only() -> None:
    index = blind_index(KEY, PHONE)
    assert index == hmac.new(KEY, b"phone:+8613800138000", hashlib.sha256).digest()
    assert index != blind_index(OTHER_KEY, PHONE)
    assert index != blind_index(KEY, "+8613800138001")


@given(MOBILES, st.text(max_size=40).filter(str.isprintable))
def test_what_was_sealed_comes_back(digits: str, aad: str) -> None:
    phone = f"+86{digits}"
    sealed = seal(KEY, phone, aad=aad)
    assert unseal(KEY, sealed, aad=aad) == phone
    assert digits.encode() not in sealed


def test_a_sealed_number_says_how_it_was_sealed_and_never_looks_the_same_twice() -> None:
    made = [seal(KEY, PHONE, aad=ROW) for _ in range(50)]
    assert all(sealed.startswith(HEADER) for sealed in made)
    assert len({sealed[len(HEADER) : len(HEADER) + 12] for sealed in made}) == 50


def test_a_sealed_number_does_not_open_in_another_row_or_with_another_key() -> None:
    sealed = seal(KEY, PHONE, aad=ROW)
    with pytest.raises(InvalidTag):
        unseal(KEY, sealed, aad="worker|phone|0192f0c2|1")
    with pytest.raises(InvalidTag):
        unseal(OTHER_KEY, sealed, aad=ROW)


def test_every_byte_of_a_sealed_number_counts() -> None:
    sealed = seal(KEY, PHONE, aad=ROW)
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(InvalidTag):
            unseal(KEY, bytes(changed), aad=ROW)


@pytest.mark.parametrize("length", [13, 14, 20, 29])
def test_half_a_sealed_number_does_not_open(length: int) -> None:
    with pytest.raises(InvalidTag):
        unseal(KEY, seal(KEY, PHONE, aad=ROW)[:length], aad=ROW)


def test_a_mask_shows_its_owner_enough() -> None:
    assert mask(PHONE) == "138****8000"
