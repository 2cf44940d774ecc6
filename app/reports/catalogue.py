"""What each report is, what each of its figures means, and how it is computed.

The formulas are those of the code in `queries.py` over the counters of `rules/counters.py`, in
words that an administrator can defend. Each says when its figure is null: no data and zero never
look alike (law 16). `printed.py` writes it as a page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from app.reports import chinese, rows
from app.reports.comparing import FIGURES as COMPARED
from app.reports.dimensions import BESIDE, DIMENSIONS, ENDINGS, cuts_of
from app.reports.export import TITLES
from app.reports.ranking import FIGURES, OF_SCANS, WITH_SILENCE, Ranked
from app.reports.rules.ranking import FEWEST_PEERS
from app.reports.rules.rates import COVERAGE, Rate, Sum, rate_of
from app.reports.rules.suppression import K


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a report."""

    name: str
    title: str
    """In Chinese, as in files."""
    formula: str
    formula_zh: str
    unit: str
    numerator: str | None
    """Of a rate: what is divided, in fields of the same row."""
    denominator: str | None
    """Of a percentile: of how many it is one."""


@dataclass(frozen=True, slots=True)
class RankedField(Field):
    """A figure by which stations can be ranked."""

    report: str
    """That it is from."""
    must_be_heard: bool
    """Whether a station is left out that was not heard for about as long as its peers."""


@dataclass(frozen=True, slots=True)
class Described:
    """One report."""

    report: str
    title: str
    """In Chinese."""
    says: str
    says_zh: str
    by: Sequence[str]
    """What it can have a row for."""
    buckets: Sequence[str]
    """Into what pieces of time a row can be cut."""
    dimensions: Mapping[str, str]
    """What these mean."""
    dimensions_zh: Mapping[str, str]
    compared: Sequence[str]
    """The figures that can be set beside those of the period before."""
    endings: Mapping[str, str]
    """What is said of a figure under its name with such an ending, where it is compared."""
    endings_zh: Mapping[str, str]
    beside: Mapping[str, str]
    """What is said of a row that is compared: of which days, and how complete they are before."""
    beside_zh: Mapping[str, str]
    figures: Sequence[str]
    """By what it can be asked for; only of the ranking."""
    ranked: Sequence[RankedField]
    """What these figures are, in the same order."""
    privacy: str
    """What it hides of persons."""
    privacy_zh: str
    fields: Sequence[Field]


HARDLY = (
    "null too where there are staffed hours and (covered_hours - heads_only_hours) / staffed_hours "
    f"is below {COVERAGE}: hardly anybody who came was counted, so nobody knows who was inside"
)
NOBODY = "null where nobody was seen and there are no reporting_hours"

FORMULAS: Mapping[str, tuple[str, str]] = {
    "station": ("code of the station; null where a row is about more than one", "text"),
    "unit": (
        "id of the unit; null where a row is not about one; by `unit` a row is of the stations "
        "that hang on it directly, and units below it have rows of their own; by `branch` it is of "
        "everything below it, and only the asked unit's own row is of what hangs on it directly; "
        "a unit without any station has none; stations hang where they do now, also in rows of "
        "the past",
        "id",
    ),
    "name": (
        "name of the station or unit as it is now; by `branch`, （本级） behind it says that the "
        "row, beside those of whole branches, is of just the stations that hang on it directly",
        "text",
    ),
    "is_own": (
        "of a unit's row: whether it is of just the stations that hang on the unit directly, as by "
        "`unit` every row is, and not of everything below it; null where a row is not about a unit",
        "truth",
    ),
    "operating_model": (
        "who keeps the stations of the row going, as it is now, also in rows of the past; null for "
        "any other row",
        "text",
    ),
    "day": (
        "local day, 00:00 to 24:00 in the station's zone; of a week its Monday, of a month its "
        "first day, even where the period begins later",
        "date",
    ),
    "hour": ("local hour, 0 to 23", "hour"),
    "weekday": ("ISO day of the week, 1 is Monday", "number"),
    "day_class": (
        "workday, weekend, public_holiday or makeup_workday, by the calendar; in a year without "
        "calendar data by the weekday alone",
        "text",
    ),
    "known_share": (
        "seconds of the row's time that have passed and been counted while its stations were "
        "registered / all seconds of the row's time, of stations that were not retired before the "
        "period",
        "share",
    ),
    "reported_share": (
        "of the time in which the stations had a controller, that in which it was heard; null "
        "without one: little of it says that nothing was told, not that nothing happened",
        "share",
    ),
    "visits": (
        "visits with started_at in the row's time; a return within 10 minutes after leaving counts "
        "with the visit before (known of workers who consented); null: nothing known yet",
        "count",
    ),
    "visits_free": ("of the visits, those that began in free mode", "count"),
    "visits_scan": (
        "of the visits, those that began in any other mode, but not by an opening of a controller "
        "that worked alone",
        "count",
    ),
    "visits_offline": (
        "of the visits, those that began in any mode but free, by an opening of a controller that "
        "worked alone; visits = visits_free + visits_scan + visits_offline",
        "count",
    ),
    "persons": ("sum of party_size over the visits", "count"),
    "returns": (
        "visits within 10 minutes after leaving, which count with the visit before",
        "count",
    ),
    "unique_workers": (
        "distinct workers of the visits who consented, exact over any time and any stations; "
        "null by hour, and where beyond_retention; once the set of a quarter or year is gone, its "
        "number stays, without workers of whom somebody told only then",
        "count",
    ),
    "anonymous_visits": (
        "visits without consent; null where the row begins before the retention time",
        "count",
    ),
    "beyond_retention": (
        "whether retention took workers of the row's time before they were counted for just "
        "that time and these places: units that a station left or joined since are counted anew",
        "truth",
    ),
    "out_of_hours_visits": (
        "visits that began in any mode but free, by the mode stored at that instant",
        "count",
    ),
    "offhours_share": ("out_of_hours_visits / visits; null without visits", "share"),
    "staffed_hours": (
        "time of the stations in free mode; null, as all that is about modes, where no mode of "
        "the time is recorded",
        "hours",
    ),
    "unstaffed_hours": ("time of the stations in scan mode: open, without staff", "hours"),
    "covered_hours": (
        "of the staffed hours, those in which anybody was scanned or counted; a count of heads "
        "covers every hour that it touches",
        "hours",
    ),
    "heads_only_hours": (
        "of the covered_hours, those in which staff counted heads and nobody scanned: heads say "
        "that somebody came, and put nobody inside; 0 of what was counted before this was",
        "hours",
    ),
    "free_mode_coverage": ("covered_hours / staffed_hours; null without staffed hours", "share"),
    "night_uplift": (
        "(out_of_hours_visits / unstaffed_hours) / (visits_free / staffed_hours); null where "
        "free_mode_coverage is below 0.5, and without unstaffed_hours or visits_free; of several "
        "stations, nights are of those that open by scans, and staffed hours of all",
        "ratio",
    ),
    "walk_in_heads": (
        "sum of heads that staff counted, in whatever mode, on the day a count begins, without "
        "counts that were withdrawn; null by hour, and where head_counts is 0: nobody counted, "
        "which is not nobody; to be compared, a class of days needs a count in each period, and "
        "its days without one are days without heads: more counts make more heads, as head_counts "
        "tells",
        "count",
    ),
    "head_counts": (
        "how many times staff counted heads, of the same counts as walk_in_heads; null by hour, "
        "and where a part was counted before this was",
        "count",
    ),
    "refused": ("refused scans, every one", "count"),
    "unmet_demand": (
        "distinct (worker, station, half hour) with a refused scan and no granted one in that "
        "half hour, nor a door that a controller working alone opened for him; told later than a "
        "day after, that is known of workers who consented",
        "count",
    ),
    "stays": (
        "stays whose end somebody saw: the worker, the door's contact or staff; returns included; "
        "not those that ended by time, nor those of which only an entry at another station told",
        "count",
    ),
    "stay_hours": ("sum of their lengths", "hours"),
    "dwell_mean_s": ("stay_hours / stays, before rounding", "seconds"),
    "dwell_median_s": (
        "median of the same, in whole minutes, nearest rank of a histogram: the least value of "
        "its bucket, within 3.2 %",
        "seconds",
    ),
    "dwell_p90_s": ("90th percentile of the same, nearest rank", "seconds"),
    "ended": ("stays that are over, returns included", "count"),
    "imputed_exits": ("of these, those that ended by time alone", "count"),
    "imputed_exit_share": ("imputed_exits / ended; null without any", "share"),
    "decided": ("scans that were decided: granted, walked in or refused", "count"),
    "granted": ("scans for which an unlock command was made", "count"),
    "walk_in": ("scans at a door that stood open", "count"),
    "by_reason": ("refused scans by their reason", "counts"),
    "grant_rate": ("(granted + walk_in) / decided; null without decisions", "share"),
    "claimed": ("granted scans whose command a controller claimed", "count"),
    "executed": ("granted scans whose relay pulsed", "count"),
    "open_success_rate": (
        "(executed - with_contact + opened) / granted: at a door with a contact what it proved, at "
        "one without what the relay did; null without grants",
        "share",
    ),
    "refused_after_grant": (
        "granted scans whose command was refused: at the claim by a lockdown or an evacuation, or "
        "by the controller; granted = executed + refused_after_grant + failed + expired + unknown "
        "+ live, and these five are null where a part was counted before they were",
        "count",
    ),
    "with_contact": (
        "of the executed, those at a door that had a contact then, or of which one told later "
        "that it opened; where that was not recorded, that has one now",
        "count",
    ),
    "opened": (
        "of these, those for which the contact told that the door opened within 15 s after the "
        "pulse, or stood open at it; also where it was told later, as after an outage",
        "count",
    ),
    "proven_open_rate": ("opened / with_contact; null without any", "share"),
    "decide_p50_ms": (
        "median of the time from the arrival of a scan at the server to its decision, by the "
        "server's monotonic clock, nearest rank of a histogram: the least value of its bucket, "
        "within 3.2 %; of scans of which that was recorded, null without any",
        "milliseconds",
    ),
    "decide_p95_ms": ("95th percentile of the same, nearest rank", "milliseconds"),
    "decide_p99_ms": ("99th percentile of the same, nearest rank", "milliseconds"),
    "decide_timed": (
        "of so many scans the time of the decision was recorded, and is in the percentiles; null "
        "where an older version counted",
        "count",
    ),
    "pickup_p50_ms": (
        "median of claimed_at - created_at of the commands, nearest rank of a histogram: the "
        "least value of its bucket, within 3.2 %",
        "milliseconds",
    ),
    "pickup_p95_ms": ("95th percentile of the same, nearest rank", "milliseconds"),
    "pickup_p99_ms": ("99th percentile of the same, nearest rank", "milliseconds"),
    "pickup_timed": (
        "so many commands were claimed, by scans and from afar, and are in the percentiles; null "
        "where an older version counted",
        "count",
    ),
    "pulse_p50_ms": (
        "median of pulsed_at - created_at of executed commands, likewise",
        "milliseconds",
    ),
    "pulse_p95_ms": (
        "95th percentile of pulsed_at - created_at of executed commands, likewise",
        "milliseconds",
    ),
    "pulse_p99_ms": (
        "99th percentile of pulsed_at - created_at of executed commands, likewise",
        "milliseconds",
    ),
    "pulse_timed": (
        "so many commands were executed, by scans and from afar, and are in the percentiles; null "
        "where an older version counted",
        "count",
    ),
    "door_p50_ms": (
        "median of opened_at - pulsed_at of executed commands, likewise",
        "milliseconds",
    ),
    "door_p95_ms": (
        "95th percentile of opened_at - pulsed_at of executed commands, likewise",
        "milliseconds",
    ),
    "door_p99_ms": (
        "99th percentile of opened_at - pulsed_at of executed commands, likewise",
        "milliseconds",
    ),
    "door_timed": (
        "of so many executed commands a contact told that the door opened: these are in the "
        "percentiles; null where an older version counted",
        "count",
    ),
    "alone_opened": ("passes that controllers opened for while they worked alone", "count"),
    "alone_refused": ("passes that they refused", "count"),
    "alone_flagged": ("opened alone, and would have been refused by the server", "count"),
    "capacity": (
        "seats of the station, or of all stations of the row, as they are now, also of stations "
        "that are retired",
        "count",
    ),
    "measured_hours": (
        "hours of the row's time that can be known, from the first of its stations to the last",
        "hours",
    ),
    "station_hours": ("the same of each station, summed up", "hours"),
    "person_hours": (
        "integral of persons inside; a visit counts while started_at <= t < coalesce(ended_at, "
        "started_at + max_stay)",
        "hours",
    ),
    "used_hours": ("of the station_hours, those with at least one person inside", "hours"),
    "reporting_hours": (
        "of the station_hours, those in mode free or scan in which a controller was heard; null "
        "where a part was counted before this was",
        "hours",
    ),
    "seat_hours": (
        "seats x the reporting_hours of each station, summed up, by the seats that there were "
        "then; of time before those were recorded, by the first that were",
        "hours",
    ),
    "reporting_person_hours": ("of the person_hours, those within the reporting_hours", "hours"),
    "reporting_used_hours": ("of the used_hours, those within the reporting_hours", "hours"),
    "avg_occupancy": (
        "reporting_person_hours / reporting_hours; persons inside each station that is open; "
        f"null without reporting_hours; {HARDLY}",
        "persons",
    ),
    "avg_when_used": (
        f"reporting_person_hours / reporting_used_hours; null without any; {HARDLY}",
        "persons",
    ),
    "peak_occupancy": (
        "greatest mean of a quarter hour by the stations' clocks, of all stations of the row "
        "together, so not of one station as avg_occupancy is; null of a model of several "
        f"stations; {NOBODY}; {HARDLY}",
        "persons",
    ),
    "peak_at": ("beginning of that quarter; the first of equals; null where that is", "instant"),
    "max_observed": (
        "greatest number of persons inside at any instant; null for more than one station; "
        f"{NOBODY}; {HARDLY}",
        "persons",
    ),
    "seat_utilization": (
        f"reporting_person_hours / seat_hours; may exceed 1; null without any; {HARDLY}",
        "share",
    ),
    "time_utilization": (
        f"reporting_used_hours / reporting_hours; null without any; {HARDLY}",
        "share",
    ),
    "crowded_minutes": (
        "time at 90 % of the seats or more, at every station alike, in runs of 5 minutes or "
        "longer, of which none goes over midnight: what does is two; of the seats that there were "
        "then, and of time before those were recorded, of the first that were; "
        f"{NOBODY}; {HARDLY}",
        "minutes",
    ),
    "kind": ("kind of facility", "text"),
    "units": (
        "how many of them stand there now, at stations in use; null where rows are cut by time",
        "count",
    ),
    "uses": ("sessions that ended and quantities, by where they began", "count"),
    "open_uses": ("sessions that have not ended", "count"),
    "quantity": ("sum of the quantities", "quantity"),
    "in_use_hours": ("sum of the sessions' lengths", "hours"),
    "uses_per_visit": ("uses / visits; null without visits", "ratio"),
    "standing_hours": (
        "units x the time for which they stood there while their station was open: mode free or "
        "scan",
        "hours",
    ),
    "out_of_order_hours": ("of these, out of order", "hours"),
    "degraded_hours": ("of these, working badly", "hours"),
    "unknown_hours": ("of these, of unknown state", "hours"),
    "availability": (
        "(standing_hours - out_of_order_hours) / standing_hours; null without any",
        "share",
    ),
    "unknown_share": ("unknown_hours / standing_hours; null without any", "share"),
    "repairs": (
        "times out of order after which somebody said that it works, also badly, counted when that "
        "was said; of unknown state in between, or out of order again after it, it is still one",
        "count",
    ),
    "repair_hours": (
        "their lengths summed up: each from the first word that it was out of order until the "
        "first after the last such word that said anything else, also that its state was unknown",
        "hours",
    ),
    "repair_mean_min": ("repair_hours / repairs", "minutes"),
    "repair_median_min": (
        "median of the lengths of these repairs, in whole minutes, nearest rank of a histogram: "
        "the least value of its bucket, within 3.2 %; null without any, and where a part was "
        "counted before this was",
        "minutes",
    ),
    "open_faults_over_72h": (
        "facilities of stations in use that are out of order now, with a fault that began more "
        "than 72 hours ago, as repairs have it: with the first word of it since somebody last said "
        "that it works, also badly; of unknown state in between it is still one; null where rows "
        "are cut by time",
        "count",
    ),
    "promised_hours": (
        "time in which the stations were promised to be open: by the hours published then and by "
        "exceptions as they stood when each day began, whatever overrides, emergencies, later "
        "exceptions and later amendments made of it; null where a part was counted before this was",
        "hours",
    ),
    "usable_hours": (
        "of these, the time in mode free or scan in which a controller was heard, or staff counted "
        "heads in mode free; not what was closed, and faults of doors are not counted: no row says "
        "how long they lasted",
        "hours",
    ),
    "promise_rate": ("usable_hours / (promised_hours - unknown_hours); null without any", "share"),
    "commissioned_hours": ("time in which the stations had a controller", "hours"),
    "online_hours": ("of these, time in which it was heard", "hours"),
    "unheard_hours": (
        "of the commissioned_hours, those in which no server was there to hear: nobody knows "
        "whether the controller was online",
        "hours",
    ),
    "controller_uptime": (
        "online_hours / (commissioned_hours - unheard_hours); null without any",
        "share",
    ),
    "outages": ("outages of controllers that ended", "count"),
    "outage_hours": ("their lengths summed up", "hours"),
    "mttr_min": ("outage_hours / outages", "minutes"),
    "occupation": ("what the workers of the visits said they do; not_said: nothing", "text"),
    "all_visits": ("visits of all occupations and of who said nothing", "count"),
    "visits_share": ("visits / all_visits; null without any", "share"),
    "told_visits": (
        "visits of workers who said what they do; null where not_said is suppressed",
        "count",
    ),
    "occupation_share": ("visits / told_visits; null for not_said and without any", "share"),
    "suppressed": (
        "whether the figures are hidden: fewer than k distinct workers, nought included, or so "
        "many that a small cell could be worked out from what else is published; over several "
        "months, if in any of them; not where all visits are nought, which is published",
        "truth",
    ),
    "k": ("distinct workers that must stand behind a figure of a personal attribute", "count"),
    "peer_group": (
        "operating model and size by seats (0, 1-9, 10-19, 20-39, 40+), as they are now: the "
        "stations of the whole city that are compared; not the type of area, which is recorded of "
        "no station",
        "text",
    ),
    "figure": ("by what stations are ranked, as asked for", "text"),
    "value": ("the figure that is asked for, as in the report that it is from", "number"),
    "visits_per_seat": (
        "visits / capacity: the visits of that report, and the seats that there are now; null "
        "without seats",
        "number",
    ),
    "numerator": ("what a share was divided of; of a count the count itself", "number"),
    "denominator": ("what a share was divided by; null for a count", "number"),
    "peers": (
        "other stations of the group of which the figure is known, for as long as the percentile "
        "asks for",
        "count",
    ),
    "percentile": (
        "(peers with less + half of those with the same) / peers; null with fewer than 8 peers, "
        "and for a station known for less than 0.9 of the time that the best of its peers is; time "
        "in which its controller was not heard is not known, but for figures of which silence is a "
        f"part: {', '.join(WITH_SILENCE)}; null also where free_mode_coverage is below "
        f"{COVERAGE}, of figures that count who came in freely: {', '.join(OF_SCANS)}",
        "share",
    ),
    "rank": ("1 + peers with more; null where the percentile is", "number"),
    "serial": (
        "serial number of the controller that is there now; commands are the station's, of any",
        "text",
    ),
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
    ("ranking", "operating_model"): "who keeps the station going, as it is now",
    ("occupations", "visits"): (
        "visits of the occupation, as in the report of visits; null where suppressed, beyond "
        "retention, or until all months of the row are over and counted"
    ),
    ("occupations", "persons"): "sum of party_size over these visits; null where visits are",
    ("occupations", "unique_workers"): "distinct workers of these visits; null where visits are",
    ("occupations", "beyond_retention"): (
        "whether the row begins with a month that the retention time has reached: null then"
    ),
    ("promise", "unknown_hours"): (
        "of the promised hours, those open of which nobody knows: in mode free without a "
        "controller, or in either mode with one that no server was there to hear; known is mode "
        "free while staff counted heads, and mode scan without a controller: nobody could come in"
    ),
    ("promise", "unknown_share"): "unknown_hours / promised_hours; null without any",
    ("access", "failed"): (
        "granted scans whose command the controller claimed, and whose relay failed"
    ),
    ("access", "expired"): "granted scans whose command no controller claimed in time",
    ("access", "unknown"): (
        "granted scans whose command a controller claimed and never acknowledged: nobody knows "
        "whether the door opened; an acknowledgement that comes late settles it"
    ),
    ("access", "live"): "granted scans whose command was pending or claimed when they were counted",
    ("controllers", "executed"): "of the commands, those whose relay pulsed",
    ("controllers", "refused"): "of the commands, refused by a lockdown or by the controller",
}
"""Where one name means another thing in one report."""

SAYS: Mapping[str, tuple[type, str]] = {
    "visits": (rows.VisitsRow, "who came, when, for how long, and who could not come in"),
    "access": (rows.AccessRow, "what scans were answered, and how fast doors were opened"),
    "occupancy": (rows.OccupancyRow, "how many were inside, and how full it was"),
    "facilities": (rows.FacilitiesRow, "what was used, how often and for how long"),
    "promise": (rows.PromiseRow, "whether stations were open when that was promised"),
    "occupations": (
        rows.OccupationsRow,
        "what workers do who came, for whole months, small cells hidden",
    ),
    "ranking": (
        rows.RankingRow,
        "where stations stand among their peers by one figure",
    ),
    "controllers": (
        rows.ControllersRow,
        "which controllers are heard, and what became of their commands",
    ),
}


PRIVACY = (
    "counts and rates of places and times, which name no worker; distinct workers are a number, "
    "null where the workers are beyond retention"
)
PRIVACY_OF: Mapping[str, str] = {
    "occupations": (
        f"cells of fewer than {K} distinct workers are hidden, nought included, with what they "
        "could be worked out from; whole months that are over, and places of the tree, only"
    ),
    "facilities": "counts and times of things at places, which name no worker",
    "promise": "times of places, which say nothing of workers",
    "ranking": (
        "figures of the stations of your scope; of other stations only how many have less, and of "
        f"fewer than {FEWEST_PEERS} nothing"
    ),
    "controllers": "counts of commands and states of devices, which name no worker",
}


def described() -> Sequence[Described]:
    """Give the catalogue."""
    found = []
    for report, (row, says) in SAYS.items():
        by, buckets = cuts_of(report)
        dimensions = {each.value: DIMENSIONS[each.value] for each in (*by, *buckets)}
        endings, beside = (ENDINGS, BESIDE) if report in COMPARED else ({}, {})
        names: Sequence[str] = row._fields  # type: ignore[attr-defined]  # Rows are named tuples.
        found.append(
            Described(
                report=report,
                title=chinese.REPORTS[report][0],
                says=says,
                says_zh=chinese.REPORTS[report][1],
                by=[each.value for each in by],
                buckets=[each.value for each in buckets],
                dimensions={name: said.english for name, said in dimensions.items()},
                dimensions_zh={name: said.chinese for name, said in dimensions.items()},
                compared=COMPARED.get(report, ()),
                endings={name: said.english for name, said in endings.items()},
                endings_zh={name: said.chinese for name, said in endings.items()},
                beside={name: said.english for name, said in beside.items()},
                beside_zh={name: said.chinese for name, said in beside.items()},
                figures=[each.value for each in Ranked] if report == "ranking" else [],
                ranked=list(map(ranked_field, Ranked)) if report == "ranking" else [],
                privacy=PRIVACY_OF.get(report, PRIVACY),
                privacy_zh=chinese.PRIVACY_OF.get(report, chinese.PRIVACY),
                fields=[field_of(report, name) for name in names],
            )
        )
    return found


COUNTED: Mapping[str, str] = {
    "dwell_median_s": "stays",
    "dwell_p90_s": "stays",
    "repair_median_min": "repairs",
    **{
        f"{name}_p{percent}_ms": f"{name}_timed"
        for name in ("decide", "pickup", "pulse", "door")
        for percent in (50, 95, 99)
    },
}
"""Of each percentile, the field that says of how many it is one."""


def field_of(report: str, name: str, ranked: Ranked | None = None) -> Field:
    """Give what a field of a report is; in the ranking, of the figure that it is `ranked` by."""
    if report != "ranking" or ranked is None:
        return _field(report, name)
    home = FIGURES[ranked].report
    of, rate = _field(home, ranked.value), rate_of(home, ranked.value)
    if name == "value" or (name == "numerator" and rate is None):
        return replace(of, name=name, title=TITLES[name])
    if name == "numerator" and rate is not None:
        return _side(name, home, rate.numerator)
    if name == "denominator" and rate is not None:
        return _side(name, home, rate.denominator)
    return _field(report, name)


def _field(report: str, name: str) -> Field:
    formula, unit = FORMULAS[name]
    rate = rate_of(report, name)
    sides: tuple[str | None, str | None] = (None, COUNTED.get(name))
    if rate is not None:
        sides = rate.numerator.words, rate.denominator.words
    says = FORMULAS_OF.get((report, name), formula)
    in_chinese = chinese.FORMULAS_OF.get((report, name), chinese.FORMULAS[name])
    return Field(name, TITLES[name], says, in_chinese, unit, *sides)


def ranked_field(ranked: Ranked) -> RankedField:
    """Give what a figure is by which stations can be ranked."""
    one = FIGURES[ranked]
    field = _field(one.report, ranked.value)
    return RankedField(**asdict(field), report=one.report, must_be_heard=one.must_be_heard)


def _side(name: str, report: str, side: Sum | Rate) -> Field:
    """Say what a figure is divided of, or by: a field of its report, some of them, or a rate."""
    fields = [_field(report, each) for each in side.names]
    words = [side.words] if len(fields) > 1 else []
    english = "; ".join([*words, *(f"{one.name}: {one.formula}" for one in fields)])
    in_chinese = "；".join([*words, *(f"{one.name}：{one.formula_zh}" for one in fields)])
    if isinstance(side, Sum):
        return Field(name, TITLES[name], english, in_chinese, fields[0].unit, None, None)
    sides = side.numerator.words, side.denominator.words
    return Field(name, TITLES[name], english, in_chinese, "ratio", *sides)


def is_share(column: str, figure: Ranked | None = None) -> bool:
    """Whether a column's figures are parts of one; a ranking's value is what its figure is."""
    if column.endswith("_change"):
        return True
    name = column.removeprefix("before_").removesuffix("_before").removesuffix("_over")
    if name == "value" and figure is not None:
        name = figure.value
    return name in FORMULAS and FORMULAS[name][1] == "share"
