"""What a row of each report says: the fields, in order, as JSON and files name them.

Every rate has what it was divided of and by among the fields of its row. None is what cannot be
known, and a rate with nothing to divide by; zero is zero (law 16).
"""

from datetime import date, datetime
from typing import NamedTuple

from app.places.tables import FacilityKind


class VisitsRow(NamedTuple):
    """What came (metrics 1, 3, 12, 13, 22; law 8)."""

    station: str | None
    unit: str | None
    name: str
    is_own: bool | None
    """Of a unit: whether it is only of what hangs on it directly."""
    operating_model: str | None
    day: date | None
    """Of a day, a week (its Monday) or a month (its first)."""
    hour: int | None
    weekday: int | None
    day_class: str | None
    known_share: float
    reported_share: float | None
    """Of the time with a controller, what it was heard in (metrics 29); None without one."""
    visits: int | None
    """A return within ten minutes after leaving counts with the visit before; known of workers
    who consented."""
    visits_free: int | None
    visits_scan: int | None
    visits_offline: int | None
    persons: int | None
    """The visits' parties summed up."""
    returns: int | None
    unique_workers: int | None
    """Distinct workers of the visits who consented; None by hour, of which no sets are kept."""
    anonymous_visits: int | None
    beyond_retention: bool
    """Whether retention took a part of the workers before they were counted for this time."""
    out_of_hours_visits: int | None
    offhours_share: float | None
    staffed_hours: float | None
    unstaffed_hours: float | None
    """Open, without staff."""
    covered_hours: float | None
    free_mode_coverage: float | None
    """The share of staffed hours in which anybody was counted."""
    night_uplift: float | None
    walk_in_heads: int | None
    """What staff counted, beside the visits; a count belongs to the day it begins on and to no
    hour. None where nobody counted, which is not nobody."""
    head_counts: int | None
    """How many times they counted."""
    refused: int | None
    unmet_demand: int | None
    """Distinct worker, station and half hour with a refusal and no grant."""
    stays: int | None
    """Whose end somebody saw, returns included."""
    stay_hours: float | None
    dwell_mean_s: float | None
    dwell_median_s: int | None
    """Percentiles of stays are whole minutes, in seconds."""
    dwell_p90_s: int | None
    ended: int | None
    imputed_exits: int | None
    imputed_exit_share: float | None
    """Of the stays that are over, those that nobody saw end."""


class AccessRow(NamedTuple):
    """Who got in (metrics 8-11)."""

    station: str | None
    unit: str | None
    name: str
    is_own: bool | None
    operating_model: str | None
    day: date | None
    hour: int | None
    weekday: int | None
    day_class: str | None
    known_share: float
    reported_share: float | None
    decided: int | None
    granted: int | None
    walk_in: int | None
    refused: int | None
    by_reason: dict[str, int] | None
    grant_rate: float | None
    """Granted and walked in, of all decided."""
    unmet_demand: int | None
    claimed: int | None
    executed: int | None
    """Grants whose relay pulsed."""
    open_success_rate: float | None
    """executed / granted."""
    refused_after_grant: int | None
    """Grants that were not executed, by what became of them; None where an older version counted
    a part of them."""
    failed: int | None
    expired: int | None
    unknown: int | None
    live: int | None
    """Not settled yet."""
    with_contact: int | None
    """Executed, at a door with a contact."""
    opened: int | None
    """Proved by the contact."""
    proven_open_rate: float | None
    """opened / with_contact."""
    decide_p50_ms: int | None
    """From the arrival of a scan at the server to its decision."""
    decide_p95_ms: int | None
    decide_p99_ms: int | None
    decide_timed: int | None
    """So many times these are percentiles of; None where an older version did not count them."""
    pickup_p50_ms: int | None
    """From the decision to the controller's claim."""
    pickup_p95_ms: int | None
    pickup_p99_ms: int | None
    pickup_timed: int | None
    pulse_p50_ms: int | None
    """From the decision to the pulse of the relay."""
    pulse_p95_ms: int | None
    pulse_p99_ms: int | None
    pulse_timed: int | None
    door_p50_ms: int | None
    """From the pulse to the contact."""
    door_p95_ms: int | None
    door_p99_ms: int | None
    door_timed: int | None
    alone_opened: int | None
    """By controllers that worked alone."""
    alone_refused: int | None
    alone_flagged: int | None
    """Opened alone, and would have been refused."""


class OccupancyRow(NamedTuple):
    """Who was inside (metrics 16-21)."""

    station: str | None
    unit: str | None
    name: str
    is_own: bool | None
    operating_model: str | None
    day: date | None
    hour: int | None
    weekday: int | None
    day_class: str | None
    known_share: float
    reported_share: float | None
    capacity: int
    measured_hours: float | None
    """What can be known of the time, day and night alike."""
    station_hours: float | None
    """The same of every station, summed up."""
    person_hours: float | None
    used_hours: float | None
    """Of the stations' hours, those with somebody inside."""
    reporting_hours: float | None
    """Of the stations' hours, those open with a controller that was heard: what the averages are
    over."""
    seat_hours: float | None
    reporting_person_hours: float | None
    reporting_used_hours: float | None
    staffed_hours: float | None
    covered_hours: float | None
    heads_only_hours: float | None
    """Of the covered, those in which staff counted heads, who are nobody inside, and nobody
    scanned."""
    free_mode_coverage: float | None
    avg_occupancy: float | None
    """Who was inside is told only where the covered hours, less the last, are one half of the
    staffed hours, as the six figures below are."""
    avg_when_used: float | None
    peak_occupancy: float | None
    """Greatest mean of a quarter hour."""
    peak_at: datetime | None
    max_observed: int | None
    """Of one station; instants of several do not add."""
    seat_utilization: float | None
    """Persons' hours over the seats' hours, while it was open and told of; may exceed 1."""
    time_utilization: float | None
    """The share of that time with somebody inside."""
    crowded_minutes: int | None


class FacilitiesRow(NamedTuple):
    """What was used, and whether it could be (metrics 32, 33, 35, 36)."""

    station: str | None
    unit: str | None
    name: str
    is_own: bool | None
    operating_model: str | None
    day: date | None
    hour: int | None
    weekday: int | None
    day_class: str | None
    known_share: float
    reported_share: float | None
    kind: FacilityKind
    units: int
    """How many of them stand there now."""
    uses: int | None
    """Sessions that ended, and quantities; a use belongs to where it began."""
    open_uses: int | None
    quantity: float | None
    in_use_hours: float | None
    visits: int | None
    uses_per_visit: float | None
    standing_hours: float | None
    out_of_order_hours: float | None
    degraded_hours: float | None
    unknown_hours: float | None
    availability: float | None
    unknown_share: float | None
    repairs: int | None
    repair_hours: float | None
    repair_mean_min: float | None
    repair_median_min: int | None
    """None where a part of the repairs was counted before their lengths were."""
    open_faults_over_72h: int
    """Facilities that are out of order now, and have been for more than 72 hours."""


class PromiseRow(NamedTuple):
    """Whether we were open when we promised, and heard of it (metrics 26-28)."""

    station: str | None
    unit: str | None
    name: str
    is_own: bool | None
    operating_model: str | None
    day: date | None
    hour: int | None
    weekday: int | None
    day_class: str | None
    known_share: float
    reported_share: float | None
    promised_hours: float | None
    usable_hours: float | None
    unknown_hours: float | None
    promise_rate: float | None
    """Observed to be usable, of what was promised and is known."""
    unknown_share: float | None
    staffed_hours: float | None
    commissioned_hours: float | None
    online_hours: float | None
    unheard_hours: float | None
    """Commissioned, and no server was there to hear: neither online nor offline."""
    controller_uptime: float | None
    outages: int | None
    """That ended."""
    outage_hours: float | None
    mttr_min: float | None


class OccupationsRow(NamedTuple):
    """What workers do who came, where enough of them came (metrics 7, 50)."""

    station: str | None
    unit: str | None
    name: str
    is_own: bool | None
    day: date | None
    """The first of the month, where rows are cut by month."""
    known_share: float
    occupation: str
    visits: int | None
    persons: int | None
    unique_workers: int | None
    all_visits: int | None
    """Of all occupations together: what visits_share is of."""
    visits_share: float | None
    told_visits: int | None
    """Of those who said what they do: what occupation_share is of."""
    occupation_share: float | None
    suppressed: bool
    """Hidden: fewer than k workers, or a small cell could be worked out from it."""
    k: int
    beyond_retention: bool


class RankingRow(NamedTuple):
    """Where a station stands among its peers (metrics 47)."""

    station: str | None
    name: str
    operating_model: str
    capacity: int
    peer_group: str
    """Operating model and size: the stations it is compared with."""
    known_share: float
    reported_share: float | None
    figure: str
    value: float | None
    numerator: float | None
    denominator: float | None
    peers: int
    percentile: float | None
    """The share of the peers that have less."""
    rank: int | None


class ControllersRow(NamedTuple):
    """How a station's controller does, and what became of the station's commands."""

    station: str | None
    name: str
    known_share: float
    reported_share: float | None
    serial: str | None
    firmware: str | None
    seen_at: datetime | None
    online: bool | None
    """Now; None where no controller is enrolled."""
    commands: int | None
    """By scans and from afar."""
    live: int | None
    """Not settled yet."""
    executed: int | None
    refused: int | None
    failed: int | None
    expired: int | None
    unknown: int | None
    pickup_p50_ms: int | None
    """From the decision to the claim."""
    pickup_p95_ms: int | None
    pickup_timed: int | None
