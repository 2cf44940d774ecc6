"""Wire shapes that audiences share: strict inputs, complete outputs."""

from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StringConstraints,
)

from app.places.rules import EARLIEST, LATEST
from app.places.tables import FacilityKind


class In(BaseModel):
    """A request body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Out(BaseModel):
    """An answer: read from a row or a value, every field present."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


def _printable(text: str) -> str:
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text):
        raise ValueError("control characters are not allowed")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("this is not valid Unicode text") from None
    return text


def _within_bounds(instant: datetime) -> datetime:
    if not EARLIEST <= instant < LATEST:
        raise ValueError("the time must lie between 2000 and 2100")
    return instant.astimezone(UTC)


def _day_within_bounds(day: date) -> date:
    if not EARLIEST.date() <= day < LATEST.date():
        raise ValueError("the date must lie between 2000 and 2100")
    return day


Line = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(_printable),
]
"""One line of text, 1 to 200 characters, without control characters."""

Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=200),
    AfterValidator(_printable),
]
"""One line of text, perhaps empty, at most 200 characters."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=50, pattern=r"^[^\x00-\x1f]*$")]
"""What to look for in a list: a part of a name, or a whole code."""

StaffAbsentMin = Annotated[StrictInt, Field(ge=0, le=480)]
"""Minutes; 0 switches it off."""

Note = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=500),
    AfterValidator(_printable),
]
"""A remark, perhaps empty, at most 500 characters."""

Rfc3339 = Annotated[AwareDatetime, AfterValidator(_within_bounds)]
"""An instant with an offset, between 2000 and 2100."""

LocalDay = Annotated[date, AfterValidator(_day_within_bounds)]
"""A calendar day, between 2000 and 2100."""

VISIBLE = r"[\x21-\x7e]{1,128}"

Key = Annotated[str, StringConstraints(pattern=f"^{VISIBLE}$")]
"""An idempotency key, nonce or boot id: 1 to 128 visible ASCII characters."""


class FacilityItem(In):
    """A facility of a station, as an administrator describes it."""

    kind: FacilityKind
    name: Name = ""
    quantity: Annotated[StrictInt, Field(ge=1, le=10_000)] = 1


CSV_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"text/csv": {"schema": {"type": "string"}}}}
}
"""How a route describes that its body is a CSV file."""
