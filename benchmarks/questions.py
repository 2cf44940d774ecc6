"""What is asked of reports: the same of every history, month by month and place by place."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

RETENTION = timedelta(days=180)


@dataclass(frozen=True, slots=True)
class Places:
    """What the reports are asked about."""

    unit: uuid.UUID
    station: uuid.UUID
    until: date
    """The first day without history."""

    @property
    def month(self) -> tuple[date, date]:
        """The last whole month."""
        end = self.until.replace(day=1)
        return (end - timedelta(days=1)).replace(day=1), end

    @property
    def year(self) -> tuple[date, date]:
        """The last whole year, which is closed."""
        end = self.until.replace(month=1, day=1)
        return end.replace(year=end.year - 1), end

    @property
    def half_year(self) -> tuple[date, date]:
        """So many days as workers are known."""
        return self.until - timedelta(days=RETENTION.days - 1), self.until


def path_of(report: str, period: tuple[date, date], **more: str) -> str:
    """Give the address of a report over a period."""
    asked = {"from": period[0].isoformat(), "to": period[1].isoformat()} | more
    return f"/v1/admin/reports/{report}?" + "&".join(f"{k}={v}" for k, v in asked.items())


@dataclass(frozen=True, slots=True)
class Case:
    """A question, the same for all."""

    name: str
    path: str
    """With `{unit}` and `{station}`, of which each database has its own."""


def cases(places: Places) -> Sequence[Case]:
    """Give all questions."""
    month, year = ("a month", places.month), ("a year", places.year)
    cuts: Sequence[tuple[str, tuple[str, tuple[date, date]], str]] = (
        ("city", month, "station"),
        ("city", month, "day"),
        ("city", month, "hour"),
        ("city", year, "station"),
        ("city", year, "unit"),
        ("city", year, "month"),
        ("unit", month, "station"),
        ("unit", year, "month"),
        ("station", month, "day"),
        ("station", month, "hour"),
        ("station", year, "month"),
    )
    found = []
    for report in ("visits", "access", "occupancy", "facilities", "promise"):
        found += [_case(report, *cut) for cut in cuts]
    found.append(_case("visits", "city", year, "branch"))
    for cut in (cuts[0], cuts[5], cuts[6], cuts[10]):
        found.append(_case("occupations", *cut))
    for report in ("ranking", "controllers"):
        for cut in (cuts[0], cuts[3], cuts[6]):
            found.append(_case(report, *cut))
    for name, period in (
        ("unique workers of the city over 180 days", places.half_year),
        ("unique workers of the city in the year that is closed", places.year),
    ):
        found.append(Case(name, path_of("visits", period, by="all")))
    return [*found, *_more_cases(month)]


def _more_cases(month: tuple[str, tuple[date, date]]) -> Sequence[Case]:
    """Ask for what costs otherwise: beside the month before, other cuts, sources, what is live."""
    before = {"compare": "before"}
    night, failed = "visits: source of night_uplift", "access: source of failed and its rows"
    return [
        _case("visits", "city", month, "all", **before),
        _case("visits", "city", month, "station", **before),
        _case("access", "city", month, "hour", **before),
        _case("visits", "station", month, "station", **before),
        _case("visits", "city", month, "operating_model"),
        _case("occupancy", "city", month, "operating_model"),
        _case("visits", "city", month, "weekday"),
        _case("occupancy", "city", month, "day_class"),
        _case("visits", "unit", month, "station", bucket="weekday"),
        _case("access", "station", month, "station", bucket="day_class"),
        _named(night, "city", month, path_of("visits/source", month[1], figure="night_uplift")),
        _named(failed, "station", month, path_of("access/source", month[1], figure="failed")),
        Case("forecast: a station, 24 hours", "/v1/admin/stations/{station}/forecast"),
        Case("forecast: a district, 24 hours", "/v1/admin/units/{unit}/forecast"),
        Case("feed: station_status of the city, from memory", "/v1/feed/station_status.json"),
    ]


def _case(
    report: str, scope: str, period: tuple[str, tuple[date, date]], by: str, **more: str
) -> Case:
    what = "".join(f", {name}={value}" for name, value in more.items())
    case = _named(report, scope, period, path_of(report, period[1], by=by, **more))
    return replace(case, name=f"{case.name}, by {by}{what}")


def _named(what: str, scope: str, period: tuple[str, tuple[date, date]], path: str) -> Case:
    where = {"city": "the city", "unit": "a district", "station": "a station"}[scope]
    only = "" if scope == "city" else f"&{scope}={{{scope}}}"
    return Case(f"{what}: {where}, {period[0]}", f"{path}{only}")
