"""Stations ranked by a figure among their peers, whoever they belong to (metrics 47).

Peers are those of the whole city, for a district has few of a kind; of stations beyond the scope of
who asks nothing is told but how many of them have less.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import table_of
from app.people.admins import Roots
from app.places.tables import Station, Unit
from app.reports.frame import Scope, frame
from app.reports.queries import REPORTS, rows_of
from app.reports.rows import RankingRow
from app.reports.rules import rate
from app.reports.rules.ranking import band, fair, standings


class Ranked(StrEnum):
    """By what stations can be ranked."""

    VISITS = "visits"
    OUT_OF_HOURS_VISITS = "out_of_hours_visits"
    OFFHOURS_SHARE = "offhours_share"
    VISITS_PER_SEAT = "visits_per_seat"
    UNMET_DEMAND = "unmet_demand"
    GRANT_RATE = "grant_rate"
    OPEN_SUCCESS_RATE = "open_success_rate"
    SEAT_UTILIZATION = "seat_utilization"
    PROMISE_RATE = "promise_rate"
    CONTROLLER_UPTIME = "controller_uptime"


Parts = tuple[float | None, float | None, float | None]
"""A figure, what it was divided of, and by."""


@dataclass(frozen=True, slots=True)
class _Figure:
    report: str
    parts: Callable[[Any, int], Parts]
    """Of a row of the report and the station's seats."""


def _count(report: str, name: str) -> _Figure:
    return _Figure(report, lambda row, _: (getattr(row, name),) * 2 + (None,))


def _share(report: str, name: str, of: Sequence[str], by: str, less: str | None = None) -> _Figure:
    def parts(row: Any, _: int) -> Parts:
        whole = [getattr(row, each) for each in of]
        divisor = getattr(row, by)
        if None in whole or divisor is None:
            return None, None, None
        if less is not None:
            divisor = round(divisor - getattr(row, less), 3)
        return getattr(row, name), sum(whole), divisor

    return _Figure(report, parts)


def _per_seat(row: Any, seats: int) -> Parts:
    if row.visits is None:
        return None, None, None
    return rate(row.visits, seats), row.visits, seats


FIGURES: Mapping[Ranked, _Figure] = {
    Ranked.VISITS: _count("visits", "visits"),
    Ranked.OUT_OF_HOURS_VISITS: _count("visits", "out_of_hours_visits"),
    Ranked.OFFHOURS_SHARE: _share("visits", "offhours_share", ["out_of_hours_visits"], "visits"),
    Ranked.VISITS_PER_SEAT: _Figure("visits", _per_seat),
    Ranked.UNMET_DEMAND: _count("visits", "unmet_demand"),
    Ranked.GRANT_RATE: _share("access", "grant_rate", ["granted", "walk_in"], "decided"),
    Ranked.OPEN_SUCCESS_RATE: _share("access", "open_success_rate", ["executed"], "granted"),
    Ranked.SEAT_UTILIZATION: _share(
        "occupancy", "seat_utilization", ["reporting_person_hours"], "seat_hours"
    ),
    Ranked.PROMISE_RATE: _share(
        "promise", "promise_rate", ["usable_hours"], "promised_hours", less="unknown_hours"
    ),
    Ranked.CONTROLLER_UPTIME: _share(
        "promise",
        "controller_uptime",
        ["online_hours"],
        "commissioned_hours",
        less="unheard_hours",
    ),
}


class _Ranked(NamedTuple):
    id: uuid.UUID
    model: str
    seats: int
    group: str
    row: Any
    parts: Parts


async def ranking(tx: AsyncSession, scope: Scope, figure: Ranked) -> Sequence[RankingRow]:
    """Rank the stations of a scope by a figure, the highest of each group first."""
    mine = set(await tx.scalars(scope.stations))
    c = table_of(Station).c
    # Of thousands of stations, none is worth an enumeration's member.
    model = sa.type_coerce(c.operating_model, sa.String)
    model_of: dict[uuid.UUID, str] = dict((await tx.execute(sa.select(c.id, model))).all())
    roots = (await tx.scalars(sa.select(Unit.id).where(Unit.parent_id.is_(None)))).all()
    city = replace(scope, stations=sa.select(Station.id), roots=Roots(units=roots))
    one = FIGURES[figure]
    found: list[_Ranked] = []
    for part in (await frame(tx, city)).parts():
        rows = await rows_of(tx, part, REPORTS[one.report])
        for place, row in zip(part.places, rows, strict=True):
            id = place.sources[0]
            seats, group = place.capacity, f"{model_of[id]} {band(place.capacity)}"
            found.append(_Ranked(id, model_of[id], seats, group, row, one.parts(row, seats)))
    is_fair = fair([(each.group, each.row.known_share) for each in found])
    ranked = standings(
        [
            (each.group, each.parts[0] if is_known else None)
            for each, is_known in zip(found, is_fair, strict=True)
        ]
    )
    result = [
        RankingRow(
            each.row.station,
            each.row.name,
            each.model,
            each.seats,
            each.group,
            each.row.known_share,
            figure.value,
            *each.parts,
            standing.peers,
            standing.percentile,
            standing.rank,
        )
        for each, standing in zip(found, ranked, strict=True)
        if each.id in mine
    ]
    result.sort(key=lambda row: (row.peer_group, row.rank is None, row.rank or 0, row.station))
    return result
