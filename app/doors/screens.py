"""Codes on a door's screen: a new one every 30 s, handed out ahead, exchanged for a ticket.

A code on a screen proves that somebody stood before it within 45 s. A first sign-in takes longer,
so the page exchanges the code as it loads: the ticket lets this browser, and no other, use this
code for five minutes.
"""

import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import AlertKind
from app.doors import qr, tokens
from app.doors.registry import DoorNotFound
from app.doors.rules import SCREEN_DEAD_AFTER
from app.doors.tables import Door, DoorTicket
from app.doors.tokens import (
    DISPLAY_GRACE,
    DISPLAY_PERIOD,
    DisplayClaims,
    Keys,
    SigningKey,
    TokenRefusal,
)
from app.errors import Invalid, TooMany
from app.people.secrets import hash_of
from app.places.tables import Station

AHEAD = timedelta(minutes=15)
"""Codes are handed out for no longer: what a stolen screen holds ends with them (T17)."""

TICKET_LIFETIME = timedelta(minutes=5)

TICKETS_PER_CODE = 50
"""More browsers than this do not stand before one screen in half a minute."""


class DoorHasNoScreen(Invalid):
    """This door has no screen."""


class CodeRefused(Invalid):
    """This code is not one that a screen shows now; please scan the code on the screen again."""


class TooManyTickets(TooMany):
    """Too many phones use this code; please scan the next one."""


@dataclass(frozen=True, slots=True)
class Code:
    """What a screen shows during `[shown_from, shown_until)`."""

    token: str
    url: str
    shown_from: datetime
    shown_until: datetime


async def codes(
    tx: AsyncSession,
    key: SigningKey,
    station_id: uuid.UUID,
    door_id: uuid.UUID,
    *,
    public_url: str,
    at: datetime,
) -> Sequence[Code]:
    """Give the codes of a door from now on, and note that its screen asked.

    Asked again, the same instants have the same codes. Raises DoorNotFound, DoorHasNoScreen.
    """
    door = await tx.scalar(
        sa.select(Door).where(
            Door.id == door_id, Door.station_id == station_id, Door.retired_at.is_(None)
        )
    )
    if door is None:
        raise DoorNotFound
    if not door.has_display:
        raise DoorHasNoScreen
    await tx.execute(sa.update(Door).where(Door.id == door_id).values(codes_at=at))
    await book.settle(tx, AlertKind.DISPLAY_DEAD, f"door:{door_id}", at=at)
    return [
        _code(key, door.number, window, public_url) for window in _windows(at, until=at + AHEAD)
    ]


def _windows(at: datetime, *, until: datetime) -> Sequence[int]:
    """Number the periods of 30 s since 1970 that touch `[at, until)`, whole ones only at the end.

    The last begins early enough for its code to be over by then, but for the grace.
    """
    period = DISPLAY_PERIOD.total_seconds()
    return range(int(at.timestamp() // period), int(until.timestamp() // period))


def _code(key: SigningKey, number: str, window: int, public_url: str) -> Code:
    shown_from = tokens.EPOCH + window * DISPLAY_PERIOD
    token = tokens.sign_display(
        key,
        door=number,
        issued_at=shown_from,
        expires_at=shown_from + DISPLAY_PERIOD + DISPLAY_GRACE,
        jti=f"{number}-{window}",
    )
    return Code(token, qr.door_url(public_url, token), shown_from, shown_from + DISPLAY_PERIOD)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the browser keeps; told once."""

    secret: str
    expires_at: datetime


async def exchange(tx: AsyncSession, keys: Keys, token: str, *, at: datetime) -> Ticket:
    """Give a browser a ticket for the code it sees; raises CodeRefused, TooManyTickets."""
    claims = tokens.verify_display(keys, token, at)
    if isinstance(claims, TokenRefusal):
        raise CodeRefused
    given = await tx.scalar(
        sa.select(sa.func.count()).select_from(DoorTicket).where(DoorTicket.jti == claims.jti)
    )
    if (given or 0) >= TICKETS_PER_CODE:
        raise TooManyTickets(retry_after_s=int(DISPLAY_PERIOD.total_seconds()))
    secret = secrets.token_urlsafe(32)
    expires_at = at + TICKET_LIFETIME
    await tx.execute(
        sa.insert(DoorTicket).values(
            secret_hash=hash_of(secret), jti=claims.jti, issued_at=at, expires_at=expires_at
        )
    )
    return Ticket(secret, expires_at)


async def holds_ticket(
    tx: AsyncSession, claims: DisplayClaims, secret: str | None, *, at: datetime
) -> bool:
    """Whether this browser exchanged this very code, and its five minutes are not over."""
    if not secret:
        return False
    found = await tx.scalar(
        sa.select(DoorTicket.jti).where(
            DoorTicket.secret_hash == hash_of(secret),
            DoorTicket.jti == claims.jti,
            DoorTicket.expires_at > at,
        )
    )
    return found is not None


async def watch(tx: AsyncSession, *, at: datetime) -> None:
    """Open an alert for every screen that no code was fetched for, for five minutes."""
    dead = await tx.execute(
        sa.select(Door.id, Door.station_id, Door.codes_at, Door.created_at)
        .join(Station, Station.id == Door.station_id)
        .where(
            Door.has_display,
            Door.retired_at.is_(None),
            Station.retired_at.is_(None),
            sa.func.coalesce(Door.codes_at, Door.created_at) <= at - SCREEN_DEAD_AFTER,
        )
    )
    silent = {f"door:{row.id}": row for row in dead}
    known = await book.open_ones(tx, AlertKind.DISPLAY_DEAD)
    # A door may have lost its screen, or be retired, without another fetch.
    await book.settle_all(tx, AlertKind.DISPLAY_DEAD, known.keys() - silent.keys(), at=at)
    died = []
    for subject, row in silent.items():
        since = (row.codes_at or row.created_at) + SCREEN_DEAD_AFTER
        fetched = row.codes_at.isoformat() if row.codes_at else None
        detail = {"codes_at": fetched}
        died.append(Evidence(AlertKind.DISPLAY_DEAD, subject, row.station_id, since, detail))
    await book.note_all(tx, await book.untold(tx, died, known), at=at)
