"""Union units: a tree by materialised paths; a branch is one range of them."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import Action, Actor, Subject, record
from app.db.types import new_id
from app.errors import Conflict, Invalid, NotFound
from app.places.rules import child_path, is_within, under_bounds
from app.places.tables import Station, Unit, UnitKind


class UnitNotFound(NotFound):
    """There is no such unit."""


class UnitInUse(Conflict):
    """This unit still has stations or units below it."""


class UnitInvalid(Invalid):
    """The unit cannot stand there."""


@dataclass(frozen=True, slots=True)
class NewUnit:
    """A unit to add."""

    name: str
    kind: UnitKind
    parent_id: uuid.UUID | None
    staff_absent_min: int | None = None


def under(path: str) -> sa.ColumnElement[bool]:
    """Select a branch: the unit itself and everything below; one range of an indexed column."""
    low, high = under_bounds(path)
    return sa.or_(Unit.path == path, sa.and_(Unit.path >= low, Unit.path < high))


async def get_unit(
    tx: AsyncSession, unit_id: uuid.UUID, *, within: sa.Select[uuid.UUID] | None = None
) -> Unit:
    """Give a unit, of those `within`; raises UnitNotFound."""
    query = sa.select(Unit).where(Unit.id == unit_id)
    if within is not None:
        query = query.where(Unit.id.in_(within))
    unit = await tx.scalar(query)
    if unit is None:
        raise UnitNotFound
    return unit


async def get_parent(tx: AsyncSession, unit_id: uuid.UUID, *, within: sa.Select[uuid.UUID]) -> Unit:
    """Give a unit that a request names beside the one it is about; raises UnitInvalid."""
    try:
        return await get_unit(tx, unit_id, within=within)
    except UnitNotFound:
        raise UnitInvalid("There is no such parent unit.") from None


def _subject(unit: Unit) -> Subject:
    return Subject("unit", unit.id, unit_path=unit.path)


async def add(tx: AsyncSession, new: NewUnit, *, actor: Actor, at: datetime) -> Unit:
    """Add a unit below its parent, or a root; raises UnitInvalid."""
    parent = await _parent(tx, new.parent_id)
    await _require_free_name(tx, new.name, new.parent_id)
    number = await _next_number(tx)
    unit = Unit(
        id=new_id(),
        name=new.name,
        kind=new.kind,
        parent_id=new.parent_id,
        number=number,
        path=child_path(parent.path if parent else None, number),
        staff_absent_min=new.staff_absent_min,
        created_at=at,
        changed_at=at,
    )
    tx.add(unit)
    await tx.flush()
    await record(tx, actor, Action.UNIT_ADDED, _subject(unit), at=at, after={"name": unit.name})
    return unit


async def _lock_tree(tx: AsyncSession) -> None:
    """Let one transaction at a time change the tree, by holding its roots.

    A path that was read before may be another one by now: read it again afterwards.
    """
    roots = sa.select(Unit.id).where(Unit.parent_id.is_(None)).order_by(Unit.id)
    await tx.execute(roots.with_for_update(key_share=True))


async def _read_again(tx: AsyncSession, unit_id: uuid.UUID) -> Unit | None:
    """Lock a unit and give it as it stands now, not as this transaction first saw it."""
    query = sa.select(Unit).where(Unit.id == unit_id).with_for_update()
    return await tx.scalar(query.execution_options(populate_existing=True))


async def _parent(tx: AsyncSession, parent_id: uuid.UUID | None) -> Unit | None:
    if parent_id is None:
        return None
    await _lock_tree(tx)
    parent = await _read_again(tx, parent_id)
    if parent is None or parent.retired_at is not None:
        raise UnitInvalid("The parent is not a unit in use.")
    return parent


async def _next_number(tx: AsyncSession) -> int:
    """Give a number no unit ever had: a path that was left must not become another unit's.

    Audit entries and administrators are scoped by paths. A unit that moves takes a new number, so
    the greatest never falls.
    """
    return 1 + (await tx.scalar(sa.select(sa.func.max(Unit.number))) or 0)


async def _require_free_name(
    tx: AsyncSession,
    name: str,
    parent_id: uuid.UUID | None,
    *,
    besides: uuid.UUID | None = None,
) -> None:
    """Raise UnitInvalid unless names from the root stay unambiguous: files name units by them."""
    if "/" in name:
        raise UnitInvalid("A name has no /; it stands between the names of a branch.")
    siblings = Unit.parent_id == parent_id if parent_id else Unit.parent_id.is_(None)
    query = sa.select(Unit.id).where(siblings, Unit.name == name, Unit.retired_at.is_(None))
    if besides is not None:
        query = query.where(Unit.id != besides)
    if await tx.scalar(query.limit(1)) is not None:
        raise UnitInvalid("A unit beside it has this name already.")


async def amend(
    tx: AsyncSession,
    unit: Unit,
    *,
    changes: Mapping[str, Any],
    actor: Actor,
    at: datetime,
) -> Unit:
    """Change name, kind or `staff_absent_min`; raises UnitInvalid."""
    before = _told(unit)
    name = changes.get("name")
    if name is not None and name != unit.name:
        await _require_free_name(tx, name, unit.parent_id, besides=unit.id)
    unit.name = name or unit.name
    unit.kind = changes.get("kind") or unit.kind
    unit.staff_absent_min = changes.get("staff_absent_min", unit.staff_absent_min)
    after = _told(unit)
    if after == before:
        return unit  # A move alone is told by the move; nothing at all is told by nobody.
    unit.changed_at = at
    await record(tx, actor, Action.UNIT_AMENDED, _subject(unit), at=at, before=before, after=after)
    return unit


def _told(unit: Unit) -> dict[str, Any]:
    return {
        "name": unit.name,
        "kind": unit.kind.value,
        "staff_absent_min": unit.staff_absent_min,
    }


async def move(tx: AsyncSession, unit: Unit, parent: Unit, *, actor: Actor, at: datetime) -> Unit:
    """Hang a branch elsewhere; the paths below it are rewritten in one statement.

    Raises UnitInvalid when the new parent lies in the branch itself. Moves come one after the
    other: two at once could hang two branches below each other, where no root leads to them.
    """
    await _lock_tree(tx)
    await _read_again(tx, unit.id)
    await _read_again(tx, parent.id)
    if is_within(parent.path, unit.path):
        raise UnitInvalid("A unit cannot be moved below itself.")
    locked = await _parent(tx, parent.id)
    assert locked is not None
    await _require_free_name(tx, unit.name, parent.id)
    number = await _next_number(tx)
    old, new = unit.path, child_path(locked.path, number)
    await tx.execute(
        sa.update(Unit)
        .where(under(old))
        .values(path=sa.literal(new) + sa.func.substr(Unit.path, len(old) + 1), changed_at=at)
        .execution_options(synchronize_session=False)
    )
    await tx.execute(
        sa.update(Unit).where(Unit.id == unit.id).values(parent_id=parent.id, number=number)
    )
    await tx.refresh(unit)
    before, after = {"path": old}, {"path": new}
    await record(tx, actor, Action.UNIT_AMENDED, _subject(unit), at=at, before=before, after=after)
    return unit


async def get_in_use(tx: AsyncSession, unit_id: uuid.UUID, *, within: sa.Select[uuid.UUID]) -> Unit:
    """Give a unit something new may hang on, in use until this transaction ends.

    Raises UnitNotFound, UnitInvalid.
    """
    unit = await get_unit(tx, unit_id, within=within)
    held = sa.select(Unit.retired_at).where(Unit.id == unit_id).with_for_update(read=True)
    if await tx.scalar(held) is not None:
        raise UnitInvalid("This unit is retired.")
    return unit


async def retire(tx: AsyncSession, unit: Unit, *, actor: Actor, at: datetime) -> Unit:
    """Take a unit out of use; raises UnitInUse while anything hangs on it."""
    await _read_again(tx, unit.id)  # Whoever hangs something on it now is waited for.
    if unit.retired_at is not None:
        return unit
    station = await tx.scalar(
        sa.select(Station.id)
        .where(Station.unit_id == unit.id, Station.retired_at.is_(None))
        .limit(1)
    )
    child = await tx.scalar(
        sa.select(Unit.id).where(Unit.parent_id == unit.id, Unit.retired_at.is_(None)).limit(1)
    )
    if station is not None or child is not None:
        raise UnitInUse
    unit.retired_at = at
    unit.changed_at = at
    await record(tx, actor, Action.UNIT_RETIRED, _subject(unit), at=at)
    return unit


async def by_full_name(tx: AsyncSession) -> dict[str, Unit]:
    """Give the units in use by their names from the root, as `市总工会/渝中区总工会`."""
    rows: Sequence[Unit] = (
        await tx.scalars(sa.select(Unit).where(Unit.retired_at.is_(None)).order_by(Unit.path))
    ).all()
    names: dict[uuid.UUID, str] = {}
    found: dict[str, Unit] = {}
    for unit in sorted(rows, key=lambda row: row.path.count(".")):
        above = names.get(unit.parent_id) if unit.parent_id else None
        names[unit.id] = f"{above}/{unit.name}" if above else unit.name
        found[names[unit.id]] = unit
    return found
