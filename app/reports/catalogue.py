"""What each report is, what each of its figures means, and how it is computed.

The formulas are those of the code in `queries.py`, in words that an administrator can defend. Each
says when its figure is null: no data and zero never look alike (law 16). `docs/reports.md` is this,
printed: `python -m app.reports.catalogue > docs/reports.md`.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.reports import queries
from app.reports.export import TITLES
from app.reports.frame import Bucket, By


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a report."""

    name: str
    title: str
    """In Chinese, as in files."""
    formula: str
    unit: str


@dataclass(frozen=True, slots=True)
class Described:
    """One report."""

    report: str
    says: str
    by: Sequence[str]
    """What it can have a row for."""
    buckets: Sequence[str]
    """Into what pieces of time a row can be cut."""
    fields: Sequence[Field]


FORMULAS: Mapping[str, tuple[str, str]] = {
    "station": ("code of the station; null where a row is about more than one", "text"),
    "unit": ("id of the unit; null where a row is not about one", "id"),
    "name": ("name of the station or unit as it is now", "text"),
    "day": ("local day, half open: 00:00 to 24:00 in the station's zone", "date"),
    "hour": ("local hour, 0 to 23", "hour"),
    "known_share": (
        "seconds of the row's time that have passed while its stations were registered / all "
        "seconds of the row's time",
        "share",
    ),
    "visits": (
        "visits with started_at in the row's time; a return within 10 minutes after leaving counts "
        "with the visit before (known of workers who consented); null: nothing known yet",
        "count",
    ),
    "persons": ("sum of party_size over the visits", "count"),
    "unique_workers": (
        "distinct workers of the visits who consented; null beyond retention",
        "count",
    ),
    "anonymous_visits": ("visits without consent; null beyond retention", "count"),
    "beyond_retention": (
        "whether visits of the row's period have lost their workers by retention",
        "truth",
    ),
    "out_of_hours_visits": (
        "visits that began in any mode but free, by the mode stored at that instant",
        "count",
    ),
    "offhours_share": ("out_of_hours_visits / visits; null without visits", "share"),
    "walk_in_heads": (
        "sum of heads that staff counted in free hours, on the day a count begins; null by hour",
        "count",
    ),
    "refused": ("refused scans, every one", "count"),
    "unmet_demand": (
        "distinct (worker, station, half hour) with a refused scan and no granted one in that half "
        "hour; null beyond retention",
        "count",
    ),
    "dwell_mean_s": ("mean of ended_at - started_at over stays whose end was observed", "seconds"),
    "dwell_median_s": ("median of the same, nearest rank", "seconds"),
    "dwell_p90_s": ("90th percentile of the same, nearest rank", "seconds"),
    "imputed_exit_share": ("stays that ended by time alone / stays that are over", "share"),
    "decided": ("scans that were decided: granted, walked in or refused", "count"),
    "granted": ("scans for which an unlock command was made", "count"),
    "walk_in": ("scans at a door that stood open", "count"),
    "by_reason": ("refused scans by their reason", "counts"),
    "grant_rate": ("(granted + walk_in) / decided; null without decisions", "share"),
    "executed": ("granted scans whose relay pulsed", "count"),
    "open_success_rate": ("executed / granted; null without grants", "share"),
    "pickup_p50_ms": ("median of claimed_at - created_at of the commands", "milliseconds"),
    "pickup_p95_ms": ("95th percentile of the same, nearest rank", "milliseconds"),
    "pickup_p99_ms": ("99th percentile of the same, nearest rank", "milliseconds"),
    "capacity": ("seats of the station, or of all stations of the row, as they are now", "count"),
    "measured_hours": ("hours of the row's time that can be known", "hours"),
    "avg_occupancy": (
        "integral of persons inside over the measured time / measured time; a visit counts while "
        "started_at <= t < coalesce(ended_at, started_at + max_stay)",
        "persons",
    ),
    "avg_when_used": ("the same integral / time with at least one person inside", "persons"),
    "peak_occupancy": ("greatest mean of a 15-minute bin", "persons"),
    "peak_at": ("beginning of that bin", "instant"),
    "max_observed": ("greatest number of persons inside at any instant", "persons"),
    "seat_utilization": (
        "integral of persons inside / (seats x measured time); may exceed 1",
        "share",
    ),
    "time_utilization": ("time with at least one person inside / measured time", "share"),
    "kind": ("kind of facility", "text"),
    "units": ("how many of them stand there now", "count"),
    "uses": ("sessions that ended and quantities, by where they began", "count"),
    "open_uses": ("sessions that have not ended", "count"),
    "quantity": ("sum of the quantities", "quantity"),
    "in_use_hours": ("sum of the sessions' lengths", "hours"),
    "uses_per_visit": ("uses / visits; null without visits", "ratio"),
    "serial": ("serial number of the controller", "text"),
    "firmware": ("what it said of its firmware when it was enrolled", "text"),
    "seen_at": ("when it last began or ended a request", "instant"),
    "online": ("whether that was within CONTROLLER_SILENCE_S", "truth"),
    "commands": ("unlock commands of the period", "count"),
    "live": ("of these, pending or claimed", "count"),
    "failed": ("of these, failed at the relay", "count"),
    "expired": ("of these, never claimed in time", "count"),
    "unknown": ("of these, claimed and never acknowledged", "count"),
}
"""How each figure is computed, and in what it is measured."""

FORMULAS_OF: Mapping[tuple[str, str], str] = {
    ("controllers", "executed"): "of the commands, those whose relay pulsed",
    ("controllers", "refused"): "of the commands, refused by a lockdown or by the controller",
}
"""Where one name means another thing in one report."""

SAYS: Mapping[str, tuple[type, str]] = {
    "visits": (queries.VisitsRow, "who came, when, for how long, and who could not come in"),
    "access": (queries.AccessRow, "what scans were answered, and how fast doors were opened"),
    "occupancy": (queries.OccupancyRow, "how many were inside, and how full it was"),
    "facilities": (queries.FacilitiesRow, "what was used, how often and for how long"),
    "controllers": (
        queries.ControllersRow,
        "which controllers are heard, and what became of their commands",
    ),
}


def described() -> Sequence[Described]:
    """Give the catalogue."""
    found = []
    for report, (row, says) in SAYS.items():
        cut = report != "controllers"
        names: Sequence[str] = row._fields  # type: ignore[attr-defined]  # Rows are named tuples.
        found.append(
            Described(
                report=report,
                says=says,
                by=[by.value for by in By] if cut else [By.STATION.value],
                buckets=[bucket.value for bucket in Bucket] if cut else [],
                fields=[_field(report, name) for name in names],
            )
        )
    return found


def _field(report: str, name: str) -> Field:
    formula, unit = FORMULAS[name]
    return Field(name, TITLES[name], FORMULAS_OF.get((report, name), formula), unit)


def page() -> str:
    """Write the catalogue as a page."""
    lines = [
        "# Reports",
        "",
        "Every figure, how it is computed, and when it is null. Printed from the catalogue;",
        "the same is at `GET /v1/admin/reports`. Days are the station's own; `to` is excluded.",
        "",
    ]
    for one in described():
        lines += [f"## {one.report}", "", f"{one.says[0].upper()}{one.says[1:]}.", ""]
        lines += [f"A row for each: {', '.join(one.by)}."]
        if one.buckets:
            lines[-1] += f" Cut by: {', '.join(one.buckets)}."
        lines += ["", "| field | 名称 | formula | in |", "|---|---|---|---|"]
        lines += [
            f"| `{field.name}` | {field.title} | {field.formula} | {field.unit} |"
            for field in one.fields
        ]
        lines += [""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
