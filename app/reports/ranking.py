"""Stations ranked by a figure among their peers, whoever they belong to (metrics 47).

Peers are those of the whole city, for a district has few of a kind; of stations beyond the scope of
who asks nothing is told but how many of them have less.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import table_of
from app.people.admins import Roots
from app.places.tables import Station, Unit
from app.reports.columns import Column
from app.reports.frame import frame
from app.reports.queries import REPORTS, Columns, columns_of
from app.reports.rules import rate
from app.reports.rules.ranking import fair, peer_group, standings
from app.reports.rules.rates import COVERAGE, Rate, Sum, rate_of
from app.reports.scope import Scope


class Ranked(StrEnum):
    """By what stations can be ranked."""

    VISITS = "visits"
    OUT_OF_HOURS_VISITS = "out_of_hours_visits"
    OFFHOURS_SHARE = "offhours_share"
    NIGHT_UPLIFT = "night_uplift"
    FREE_MODE_COVERAGE = "free_mode_coverage"
    VISITS_PER_SEAT = "visits_per_seat"
    UNMET_DEMAND = "unmet_demand"
    GRANT_RATE = "grant_rate"
    OPEN_SUCCESS_RATE = "open_success_rate"
    PROVEN_OPEN_RATE = "proven_open_rate"
    IMPUTED_EXIT_SHARE = "imputed_exit_share"
    AVG_OCCUPANCY = "avg_occupancy"
    SEAT_UTILIZATION = "seat_utilization"
    TIME_UTILIZATION = "time_utilization"
    PROMISE_RATE = "promise_rate"
    CONTROLLER_UPTIME = "controller_uptime"


class Parts(NamedTuple):
    """A figure of every station, what it was divided of, and by."""

    value: Column
    numerator: Column
    denominator: Column


Named = Mapping[str, Column]
"""The columns of a report by their names."""


@dataclass(frozen=True, slots=True)
class _Figure:
    report: str
    parts: Callable[[Named, Sequence[int]], Parts]
    """Of the report and the stations' seats."""
    must_be_heard: bool = True
    """Whether it is of what controllers tell: of one that was not heard nobody knows who came, and
    that is not nobody (law 16). Of any other figure silence is a part, and leaves nobody out."""
    must_be_scanned: bool = False
    """Whether it counts who came in through an open door: where hardly any of them scan nobody
    knows how many came, as of night uplift, and an empty record is no empty room."""


def _count(report: str, name: str, **needs: bool) -> _Figure:
    def parts(said: Named, seats: Sequence[int]) -> Parts:
        return Parts(said[name], said[name], [None] * len(seats))

    return _Figure(report, parts, **needs)


def _share(report: str, name: str, **needs: bool) -> _Figure:
    rate = rate_of(report, name)
    assert rate is not None

    def parts(said: Named, _: Sequence[int]) -> Parts:
        return Parts(said[name], _sum(said, rate.numerator), _sum(said, rate.denominator))

    return _Figure(report, parts, **needs)


def _sum(said: Named, side: Sum | Rate) -> Column:
    """Sum up a side of a share, row by row; None where it is not known, or by nothing itself."""
    columns = [said[name] for name in side.names]
    found = (
        side.of(dict(zip(side.names, some, strict=True))) for some in zip(*columns, strict=True)
    )
    # Of what comes by the hour three digits would be few.
    places = 3 if isinstance(side, Sum) else 6
    return [
        None if one is None or not one.whole else round(one.part / one.whole, places)
        for one in found
    ]


def _per_seat(said: Named, seats: Sequence[int]) -> Parts:
    visits = said["visits"]
    divisor = _each(lambda _, some: some, visits, seats)
    return Parts(_each(rate, visits, seats), visits, divisor)


def _each(make: Callable[..., float | None], *columns: Column) -> Column:
    """Compute a column from others; None where one of them is."""
    return [None if None in some else make(*some) for some in zip(*columns, strict=True)]


FIGURES: Mapping[Ranked, _Figure] = {
    Ranked.VISITS: _count("visits", "visits", must_be_scanned=True),
    Ranked.OUT_OF_HOURS_VISITS: _count("visits", "out_of_hours_visits"),
    Ranked.OFFHOURS_SHARE: _share("visits", "offhours_share", must_be_scanned=True),
    Ranked.NIGHT_UPLIFT: _share("visits", "night_uplift"),
    Ranked.FREE_MODE_COVERAGE: _share("visits", "free_mode_coverage"),
    Ranked.VISITS_PER_SEAT: _Figure("visits", _per_seat, must_be_scanned=True),
    Ranked.UNMET_DEMAND: _count("visits", "unmet_demand", must_be_heard=False),
    Ranked.GRANT_RATE: _share("access", "grant_rate", must_be_heard=False),
    Ranked.OPEN_SUCCESS_RATE: _share("access", "open_success_rate", must_be_heard=False),
    Ranked.PROVEN_OPEN_RATE: _share("access", "proven_open_rate"),
    Ranked.IMPUTED_EXIT_SHARE: _share("visits", "imputed_exit_share"),
    Ranked.AVG_OCCUPANCY: _share("occupancy", "avg_occupancy"),
    Ranked.SEAT_UTILIZATION: _share("occupancy", "seat_utilization"),
    Ranked.TIME_UTILIZATION: _share("occupancy", "time_utilization"),
    Ranked.PROMISE_RATE: _share("promise", "promise_rate", must_be_heard=False),
    Ranked.CONTROLLER_UPTIME: _share("promise", "controller_uptime", must_be_heard=False),
}
"""What each is of, and by.

What the server itself records is known also while a controller is silent, and what comes of the
silence is the figure: it is offline, nothing that was promised is kept, whoever scans is refused,
and what was granted is not opened. To leave silent stations out would leave out the worst.
"""

WITH_SILENCE: Sequence[str] = [
    figure.value for figure, one in FIGURES.items() if not one.must_be_heard
]
"""The figures of which silence is a part."""

OF_SCANS: Sequence[str] = [figure.value for figure, one in FIGURES.items() if one.must_be_scanned]
"""The figures that count who came in freely."""


async def ranking(tx: AsyncSession, scope: Scope, figure: Ranked) -> Columns:
    """Rank the stations of a scope by a figure, the highest of each group first; by columns."""
    roots = (await tx.scalars(sa.select(Unit.id).where(Unit.parent_id.is_(None)))).all()
    # A station that was asked for by name stays, though it was retired before.
    whole = Roots(units=roots, stations=scope.roots.stations, is_city=True)
    made = await frame(tx, replace(scope, stations=sa.select(Station.id), roots=whole))
    # After the frame: of a station that is registered meanwhile, more is known than is asked.
    c = table_of(Station).c
    # Thousands of stations are of few models: those that are alike are one row.
    model, is_mine = sa.type_coerce(c.operating_model, sa.String), c.id.in_(scope.stations)
    query = sa.select(model, is_mine, sa.func.aggregate_strings(c.code, "\n"))
    alike = (await tx.execute(query.group_by(model, is_mine))).all()
    of_station = {
        code: (model, is_mine) for model, is_mine, codes in alike for code in codes.split("\n")
    }
    one = FIGURES[figure]
    report = REPORTS[one.report].brief
    said = dict(zip(report.row._fields, await columns_of(tx, made, report), strict=True))
    seats = [place.capacity for place in made.places]
    known = [of_station[code] for code in said["station"]]
    models, are_mine = [model for model, _ in known], [is_mine for _, is_mine in known]
    return await asyncio.to_thread(_ranked, figure, said, seats, models, are_mine)


def _are_counted(one: _Figure, said: Named) -> Sequence[bool]:
    """Say of which stations enough of those scan who come in freely, if the figure counts them."""
    if not one.must_be_scanned:
        return [True] * len(said["station"])
    return [share is None or share >= COVERAGE for share in said["free_mode_coverage"]]


def _ranked(
    figure: Ranked,
    said: Named,
    seats: Sequence[int],
    models: Sequence[str],
    are_mine: Sequence[bool],
) -> Columns:
    """Rank all stations; give the columns of those that are mine, in order."""
    stations, shares, heard = said["station"], said["known_share"], said["reported_share"]
    one = FIGURES[figure]
    parts = one.parts(said, seats)
    groups = list(map(peer_group, models, seats))
    told = [
        share * reported if one.must_be_heard and reported is not None else share
        for share, reported in zip(shares, heard, strict=True)
    ]
    are_fair = zip(parts.value, fair(groups, told), _are_counted(one, said), strict=True)
    values = [value if is_fair and is_counted else None for value, is_fair, is_counted in are_fair]
    found = standings(groups, values)
    last = len(found) + 1
    ranks = [last if one.rank is None else one.rank for one in found]
    mine = [row for row, is_mine in enumerate(are_mine) if is_mine]
    for key in (stations, ranks, groups):  # A sort keeps the order of equals.
        mine.sort(key=key.__getitem__)
    columns: Columns = [
        stations,
        said["name"],
        models,
        seats,
        groups,
        shares,
        heard,
        [figure.value] * len(found),
        *parts,
        [one.peers for one in found],
        [one.percentile for one in found],
        [one.rank for one in found],
    ]
    return [[column[row] for row in mine] for column in columns]
