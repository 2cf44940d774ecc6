"""What a facility was like, and when: spells without gaps, from its first day to its last.

Words on a facility come from administrators, now, and from devices, late and in any order. Each
word holds from its own instant until the next one, so the spells that remain do not depend on the
order in which the words came. Two words of one instant: the worse one stands.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import table_of
from app.places.tables import Facility, FacilityKind, FacilitySpell, FacilityStatus

_SPELLS = table_of(FacilitySpell)

_WORSE = (
    FacilityStatus.WORKING,
    FacilityStatus.UNKNOWN,
    FacilityStatus.DEGRADED,
    FacilityStatus.OUT_OF_ORDER,
)
"""The later is worse."""


class Spell(NamedTuple):
    """A time in which so many of a facility stood in one status."""

    facility_id: uuid.UUID
    kind: FacilityKind
    quantity: int
    status: FacilityStatus
    from_at: datetime
    until_at: datetime | None
    out_from_at: datetime | None = None
    """When it was first said to be out of order, as long as nobody has said since that it works."""
    out_until_at: datetime | None = None
    """Until when that was last known; later it may be unknown. None: it is out of order."""


FINE = (FacilityStatus.WORKING, FacilityStatus.DEGRADED)
"""Whoever says so says that a fault is over; of one that is unknown nobody does."""


def first_of(facility: Mapping[str, Any]) -> dict[str, Any]:
    """Give the first spell of a facility that is being written."""
    return {
        "facility_id": facility["id"],
        "from_at": facility["created_at"],
        "until_at": None,
        "station_id": facility["station_id"],
        "kind": facility["kind"],
        "quantity": facility["quantity"],
        "status": facility["status"],
        "said": True,
        "changed_at": facility["changed_at"],
    }


async def hold(tx: AsyncSession, facility_id: uuid.UUID) -> bool:
    """Let one transaction at a time write a facility's spells; tells whether there is such one."""
    query = sa.select(Facility.id).where(Facility.id == facility_id)
    return await tx.scalar(query.with_for_update(key_share=True)) is not None


async def say(
    tx: AsyncSession,
    facility_id: uuid.UUID,
    status: FacilityStatus,
    *,
    said_at: datetime,
    at: datetime,
) -> bool:
    """Take a word on a facility that is held: it counts from `said_at` until the next word.

    Words from before the facility was registered, and from after it was retired, change nothing.
    Tells whether this is the last word.
    """
    there = await _at(tx, facility_id, said_at)
    if there is None or (there.until_at is not None and said_at >= there.until_at):
        return False
    if there.from_at == said_at:
        if there.said and _WORSE.index(status) <= _WORSE.index(there.status):
            return False
        await _write(tx, there, status=status, said=True, changed_at=at)
    else:
        await _cut(tx, there, said_at, at=at, status=status, said=True)
    # Where only the quantity changed, the status goes on.
    next_word = sa.select(sa.func.min(_SPELLS.c.from_at)).where(
        _SPELLS.c.facility_id == facility_id, _SPELLS.c.from_at > said_at, _SPELLS.c.said.is_(True)
    )
    ends = await tx.scalar(next_word)
    follows = [_SPELLS.c.facility_id == facility_id, _SPELLS.c.from_at > said_at]
    if ends is not None:
        follows.append(_SPELLS.c.from_at < ends)
    await tx.execute(sa.update(_SPELLS).where(*follows).values(status=status, changed_at=at))
    if ends is not None:
        await _repaired_otherwise(tx, facility_id, ends, at=at)
    return ends is None


async def _repaired_otherwise(
    tx: AsyncSession, facility_id: uuid.UUID, ends: datetime, *, at: datetime
) -> None:
    """Note that the repair after a word may be another now: it counts where it was told of.

    That is the first that is fine from the next word on: a fault may begin with this.
    """
    mine = _SPELLS.c.facility_id == facility_id
    fine = _SPELLS.c.from_at >= ends, _SPELLS.c.status.in_(FINE)
    ended = sa.select(sa.func.min(_SPELLS.c.from_at)).where(mine, *fine).scalar_subquery()
    await tx.execute(
        sa.update(_SPELLS).where(mine, _SPELLS.c.from_at == ended).values(changed_at=at)
    )


async def count(tx: AsyncSession, facility_id: uuid.UUID, quantity: int, *, at: datetime) -> None:
    """Note that from now on there are so many of a facility that is held."""
    there = await _at(tx, facility_id, at)
    if there is None or (there.until_at is not None and at >= there.until_at):
        return
    if there.from_at < at:
        await _cut(tx, there, at, at=at, said=False)
    # A device's clock may be ahead of ours, so that its words already stand there.
    follows = _SPELLS.c.facility_id == facility_id, _SPELLS.c.from_at >= at
    await tx.execute(sa.update(_SPELLS).where(*follows).values(quantity=quantity, changed_at=at))


async def end(tx: AsyncSession, facility_id: uuid.UUID, *, at: datetime) -> None:
    """Note that a facility that is held stands there no longer."""
    mine = _SPELLS.c.facility_id == facility_id
    first = await tx.scalar(sa.select(sa.func.min(_SPELLS.c.from_at)).where(mine))
    ahead = _SPELLS.c.from_at >= at, _SPELLS.c.from_at != first
    await tx.execute(sa.delete(_SPELLS).where(mine, *ahead))
    lasts = sa.or_(_SPELLS.c.until_at.is_(None), _SPELLS.c.until_at > at)
    await tx.execute(sa.update(_SPELLS).where(mine, lasts).values(until_at=at))


async def latest(tx: AsyncSession, facility_id: uuid.UUID) -> tuple[FacilityStatus, datetime]:
    """Say in which status a facility is, or was at its end, and since when."""
    mine = _SPELLS.c.facility_id == facility_id
    last = (
        await tx.execute(
            sa.select(_SPELLS.c.status).where(mine).order_by(_SPELLS.c.from_at.desc()).limit(1)
        )
    ).one()
    other = (
        sa.select(sa.func.max(_SPELLS.c.from_at))
        .where(mine, _SPELLS.c.status != last.status)
        .scalar_subquery()
    )
    since = await tx.scalar(
        sa.select(sa.func.min(_SPELLS.c.from_at)).where(
            mine, sa.or_(other.is_(None), _SPELLS.c.from_at > other)
        )
    )
    assert since is not None
    return last.status, since


async def spells(
    tx: AsyncSession,
    station_ids: Sequence[uuid.UUID],
    *,
    from_at: datetime,
    until_at: datetime,
) -> Mapping[uuid.UUID, Sequence[Spell]]:
    """Give the spells of stations that end at `from_at` or touch the time until `until_at`.

    By facility and in order.
    """
    rows = (
        await tx.execute(
            sa.select(_SPELLS)
            .where(
                _SPELLS.c.station_id.in_(station_ids),
                sa.or_(_SPELLS.c.until_at.is_(None), _SPELLS.c.until_at >= from_at),
                _SPELLS.c.from_at < until_at,
            )
            .order_by(_SPELLS.c.station_id, _SPELLS.c.facility_id, _SPELLS.c.from_at)
        )
    ).all()
    faults = await _faults(tx, rows)
    found: dict[uuid.UUID, list[Spell]] = {}
    out: Fault | None = None
    before: uuid.UUID | None = None
    for row in rows:
        if row.facility_id != before:
            before, out = row.facility_id, faults.get(row.facility_id)
        if row.status in FINE:
            out = None
        elif row.status is FacilityStatus.OUT_OF_ORDER:
            out = row.from_at if out is None else out[0], row.until_at
        found.setdefault(row.station_id, []).append(
            Spell(
                row.facility_id,
                row.kind,
                row.quantity,
                row.status,
                row.from_at,
                row.until_at,
                *(out or ()),
            )
        )
    return found


Fault = tuple[datetime, datetime | None]
"""From when something was out of order, and until when that was last known."""


async def _faults(tx: AsyncSession, rows: Sequence[Any]) -> Mapping[uuid.UUID, Fault]:
    """Give the faults that began before the first spell found of each facility, and go on in it.

    As long as it is unknown how a facility is, its fault is not over.
    """
    first: dict[uuid.UUID, Any] = {}
    for row in rows:
        first.setdefault(row.facility_id, row)
    begins = {key: row.from_at for key, row in first.items() if row.status not in FINE}
    if not begins:
        return {}
    found, out, fine = (_SPELLS.alias(name) for name in ("found", "out", "fine"))
    last_fine = (
        sa.select(sa.func.max(fine.c.from_at))
        .where(
            fine.c.facility_id == found.c.facility_id,
            fine.c.from_at < found.c.from_at,
            fine.c.status.in_(FINE),
        )
        .correlate(found)
        .scalar_subquery()
    )
    faults = await tx.execute(
        sa.select(
            found.c.facility_id,
            found.c.from_at,
            sa.func.min(out.c.from_at, type_=out.c.from_at.type).label("began"),
            sa.func.max(out.c.until_at, type_=out.c.until_at.type).label("ended"),
        )
        .select_from(found)
        .join(
            out,
            sa.and_(
                out.c.facility_id == found.c.facility_id,
                out.c.from_at < found.c.from_at,
                out.c.status == FacilityStatus.OUT_OF_ORDER,
                sa.or_(last_fine.is_(None), out.c.from_at > last_fine),
            ),
        )
        .where(found.c.facility_id.in_(begins), found.c.from_at.in_(set(begins.values())))
        .group_by(found.c.facility_id, found.c.from_at)
    )
    return {
        row.facility_id: (row.began, row.ended)
        for row in faults
        if begins[row.facility_id] == row.from_at
    }


def out_since(facility_id: sa.ColumnElement[uuid.UUID]) -> sa.ScalarSelect[datetime]:
    """Say of a facility of a query when the fault began that is not over; NULL: there is none.

    As of a repair: with the first word that it is out of order since the last that it works. It may
    have been unknown meanwhile, and may be now.
    """
    out, fine = _SPELLS.alias("out"), _SPELLS.alias("fine")
    last = (
        sa.select(sa.func.max(fine.c.from_at).label("fine_at"))
        .where(fine.c.facility_id == facility_id, fine.c.status.in_(FINE))
        .correlate_except(fine)
        .subquery("last")
    )
    return (
        sa.select(sa.func.min(out.c.from_at, type_=out.c.from_at.type))
        .join_from(last, out, sa.or_(last.c.fine_at.is_(None), out.c.from_at > last.c.fine_at))
        .where(
            out.c.facility_id == facility_id,
            out.c.status == FacilityStatus.OUT_OF_ORDER,
        )
        .correlate_except(last, out)
        .scalar_subquery()
    )


def is_out_since(
    facility_id: sa.ColumnElement[uuid.UUID], since: datetime
) -> sa.ColumnElement[bool]:
    """Say of a facility of a query whether `out_since` is before an instant.

    It was out of order by the last that was known before, and nobody has said since that it works.
    A sensor may have said for years at each start that it does not know: all that is not looked at.
    """
    before, fine = _SPELLS.alias("before"), _SPELLS.alias("fine")
    known = (
        sa.select(before.c.status)
        .where(
            before.c.facility_id == facility_id,
            before.c.from_at < since,
            before.c.status != FacilityStatus.UNKNOWN,
        )
        .order_by(before.c.from_at.desc())
        .limit(1)
        .correlate_except(before)
        .scalar_subquery()
    )
    mended = (
        sa.select(sa.func.min(fine.c.from_at))
        .where(
            fine.c.facility_id == facility_id,
            fine.c.from_at >= since,
            fine.c.status.in_(FINE),
        )
        .correlate_except(fine)
        .scalar_subquery()
    )
    return sa.and_(known == FacilityStatus.OUT_OF_ORDER, mended.is_(None))


async def _at(tx: AsyncSession, facility_id: uuid.UUID, at: datetime) -> Any | None:
    """Give the spell in which an instant lies, or the last before it."""
    return (
        await tx.execute(
            sa.select(_SPELLS)
            .where(_SPELLS.c.facility_id == facility_id, _SPELLS.c.from_at <= at)
            .order_by(_SPELLS.c.from_at.desc())
            .limit(1)
        )
    ).one_or_none()


async def _write(tx: AsyncSession, spell: Any, **values: Any) -> None:
    await tx.execute(
        sa.update(_SPELLS)
        .where(_SPELLS.c.facility_id == spell.facility_id, _SPELLS.c.from_at == spell.from_at)
        .values(values)
    )


async def _cut(
    tx: AsyncSession, spell: Any, from_at: datetime, *, at: datetime, **values: Any
) -> None:
    """Let a spell end where one begins that is like it but for some values."""
    await _write(tx, spell, until_at=from_at)
    like = dict(spell._mapping) | {"from_at": from_at, "changed_at": at} | values
    await tx.execute(sa.insert(_SPELLS).values(like))
