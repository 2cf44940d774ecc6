"""The mode function: boundaries, tiers, special days, clock changes, and what always holds."""

from datetime import UTC, date, datetime, timedelta
from datetime import timezone as FixedZone
from itertools import pairwise, permutations
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opening_hours import OpeningHours

from app.places.rules import (
    Because,
    Calendar,
    Change,
    ChangeKind,
    DayClass,
    Hours,
    Kind,
    Mode,
    Span,
    StationRules,
    Tier,
    Window,
    inherited,
    local_day,
    local_hour,
    mode_at,
    mode_now,
    mode_windows,
)

SHANGHAI = "Asia/Shanghai"
DAY_STAFF = (Span(480, 1080),)
ALL_DAY = (Span(0, 1440),)
NO_CALENDAR = Calendar({}, frozenset())
CALENDAR = Calendar(
    {
        date(2026, 10, 1): DayClass.PUBLIC_HOLIDAY,
        date(2026, 10, 2): DayClass.PUBLIC_HOLIDAY,
        date(2026, 10, 10): DayClass.MAKEUP_WORKDAY,  # A Saturday.
    },
    frozenset({2026}),
)
MICRO = timedelta(microseconds=1)


def weekly(
    *spans: Span,
    public_holiday: tuple[Span, ...] | None = None,
    makeup_workday: tuple[Span, ...] | None = None,
) -> Hours:
    """The same windows on all seven days."""
    return Hours((spans,) * 7, public_holiday, makeup_workday)


def on(weekday: int, *spans: Span) -> Hours:
    """Windows on one weekday (0 is Monday) and none on the others."""
    return Hours(tuple(spans if index == weekday else () for index in range(7)))


def local(text: str, timezone: str = SHANGHAI, *, fold: int = 0) -> datetime:
    """An instant, written as the wall clock shows it."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone), fold=fold)


def wall(text: str) -> datetime:
    """A time on a wall clock, of no zone."""
    return datetime.fromisoformat(text)


def utc(text: str) -> datetime:
    """An instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def station(
    staffed: Hours | None = None,
    access: Hours | None = None,
    *changes: Change,
    timezone: str = SHANGHAI,
) -> StationRules:
    """Rules of a station."""
    return StationRules(timezone, staffed, access, changes)


SMART = station(weekly(*DAY_STAFF), weekly(*ALL_DAY))
SPLIT = station(weekly(Span(510, 720), Span(840, 1110)), weekly(Span(360, 1320)))
NIGHT = station(None, on(2, Span(1320, 1800)))  # Wednesday 22:00 to Thursday 06:00.
LATE = station(weekly(Span(480, 1440)), weekly())
PLAIN = station(weekly(*DAY_STAFF))


@pytest.mark.parametrize(
    ("rules", "at", "kind", "until"),
    [
        (SMART, "2026-11-23 07:59:59.999", Kind.SCAN, "2026-11-23 08:00"),
        (SMART, "2026-11-23 08:00", Kind.FREE, "2026-11-23 18:00"),
        (SMART, "2026-11-23 17:59:59.999", Kind.FREE, "2026-11-23 18:00"),
        (SMART, "2026-11-23 18:00", Kind.SCAN, "2026-11-24 08:00"),
        (SMART, "2026-11-24 00:00", Kind.SCAN, "2026-11-24 08:00"),
        (SPLIT, "2026-11-23 05:59:59.999", Kind.CLOSED, "2026-11-23 06:00"),
        (SPLIT, "2026-11-23 06:00", Kind.SCAN, "2026-11-23 08:30"),
        (SPLIT, "2026-11-23 08:30", Kind.FREE, "2026-11-23 12:00"),
        (SPLIT, "2026-11-23 11:59:59.999", Kind.FREE, "2026-11-23 12:00"),
        (SPLIT, "2026-11-23 12:00", Kind.SCAN, "2026-11-23 14:00"),
        (SPLIT, "2026-11-23 14:00", Kind.FREE, "2026-11-23 18:30"),
        (SPLIT, "2026-11-23 18:30", Kind.SCAN, "2026-11-23 22:00"),
        (SPLIT, "2026-11-23 22:00", Kind.CLOSED, "2026-11-24 06:00"),
        (LATE, "2026-11-23 23:59:59.999", Kind.FREE, "2026-11-24 00:00"),
        (LATE, "2026-11-24 00:00", Kind.CLOSED, "2026-11-24 08:00"),
        (NIGHT, "2026-11-25 05:00", Kind.CLOSED, "2026-11-25 22:00"),
        (NIGHT, "2026-11-25 21:59:59.999", Kind.CLOSED, "2026-11-25 22:00"),
        (NIGHT, "2026-11-25 22:00", Kind.SCAN, "2026-11-26 06:00"),
        (NIGHT, "2026-11-26 05:59:59.999", Kind.SCAN, "2026-11-26 06:00"),
        (NIGHT, "2026-11-26 06:00", Kind.CLOSED, "2026-12-02 22:00"),
    ],
)
def test_windows_are_half_open_and_split_and_run_over_midnight(
    rules: StationRules, at: str, kind: Kind, until: str
) -> None:
    mode = mode_at(rules, NO_CALENDAR, local(at))
    assert mode == Mode(kind, Because.WEEKLY, local(until).astimezone(UTC), False)
    assert mode.until is not None
    assert mode.until.tzinfo is UTC


def test_sunday_night_runs_into_monday() -> None:
    rules = station(None, on(6, Span(1320, 1800)))
    assert mode_at(rules, NO_CALENDAR, local("2026-11-23 05:59")).kind is Kind.SCAN
    assert mode_at(rules, NO_CALENDAR, local("2026-11-22 05:59")).kind is Kind.CLOSED


def test_full_days_in_a_row_have_no_seam_and_no_end() -> None:
    rules = station(None, weekly(*ALL_DAY))
    at = local("2026-11-23 12:00")
    assert mode_at(rules, CALENDAR, at) == Mode(Kind.SCAN, Because.WEEKLY, None, True)
    until = at + timedelta(days=14)
    assert mode_windows(rules, CALENDAR, at, until) == (
        Window(at, until, Kind.SCAN, Because.WEEKLY),
    )


def test_change_beyond_fourteen_days_is_not_told_and_a_longer_horizon_finds_it() -> None:
    rules = station(None, weekly(*ALL_DAY), change(ChangeKind.CLOSED, begins="2026-12-08 12:00"))
    at = local("2026-11-23 12:00")
    assert mode_at(rules, CALENDAR, at).until is None
    later = mode_at(rules, CALENDAR, at, horizon=timedelta(days=30))
    assert later.until == utc("2026-12-08 12:00")


@pytest.mark.parametrize(
    ("rules", "because"),
    [
        (station(weekly(*DAY_STAFF), None), Because.NO_ACCESS_HOURS),
        (station(None, None), Because.NO_ACCESS_HOURS),
        (station(weekly(*DAY_STAFF), weekly()), Because.WEEKLY),
    ],
)
def test_station_without_access_hours_says_so_when_it_is_not_staffed(
    rules: StationRules, because: Because
) -> None:
    mode = mode_at(rules, CALENDAR, local("2026-11-23 20:00"))
    assert (mode.kind, mode.because) == (Kind.CLOSED, because)


def test_staffed_hours_stand_before_access_hours_even_when_they_began_the_day_before() -> None:
    rules = station(on(0, Span(1320, 1560)), weekly(*ALL_DAY))
    assert mode_at(rules, CALENDAR, local("2026-11-24 01:59")).kind is Kind.FREE
    assert mode_at(rules, CALENDAR, local("2026-11-24 02:00")).kind is Kind.SCAN


HOLIDAY_OPEN = weekly(*DAY_STAFF, public_holiday=(Span(600, 720),))
HOLIDAY_SHUT = weekly(*DAY_STAFF, public_holiday=())
WEEKDAYS_ONLY = Hours((DAY_STAFF,) * 5 + ((), ()))
MAKEUP_SHORT = Hours((DAY_STAFF,) * 5 + ((), ()), None, (Span(600, 720),))
MAKEUP_SHUT = Hours((DAY_STAFF,) * 5 + (DAY_STAFF, ()), None, ())
NONE = weekly()


@pytest.mark.parametrize(
    ("rules", "at", "kind", "because"),
    [
        # A list for holidays replaces the weekday; null leaves it as it is.
        (station(HOLIDAY_OPEN, NONE), "10-01 10:00", Kind.FREE, Because.PUBLIC_HOLIDAY),
        (station(HOLIDAY_OPEN, NONE), "10-01 09:59", Kind.CLOSED, Because.PUBLIC_HOLIDAY),
        (station(HOLIDAY_OPEN, NONE), "09-30 09:59", Kind.FREE, Because.WEEKLY),
        (station(HOLIDAY_SHUT, NONE), "10-01 10:00", Kind.CLOSED, Because.PUBLIC_HOLIDAY),
        (station(HOLIDAY_SHUT, weekly(*ALL_DAY)), "10-01 10:00", Kind.SCAN, Because.WEEKLY),
        (station(weekly(*DAY_STAFF), NONE), "10-01 10:00", Kind.FREE, Because.WEEKLY),
        (station(weekly(*DAY_STAFF), NONE), "10-01 20:00", Kind.CLOSED, Because.WEEKLY),
        (station(HOLIDAY_SHUT, None), "10-01 10:00", Kind.CLOSED, Because.NO_ACCESS_HOURS),
        # Only one of the two hours needs a rule for holidays to be the reason of closing.
        (
            station(None, weekly(*DAY_STAFF, public_holiday=())),
            "10-01 10:00",
            Kind.CLOSED,
            Because.PUBLIC_HOLIDAY,
        ),
        # A make-up Saturday is as Monday unless it has a list.
        (station(WEEKDAYS_ONLY, NONE), "10-10 10:00", Kind.FREE, Because.MAKEUP_WORKDAY),
        (station(WEEKDAYS_ONLY, NONE), "10-10 20:00", Kind.CLOSED, Because.MAKEUP_WORKDAY),
        (station(WEEKDAYS_ONLY, NONE), "10-17 10:00", Kind.CLOSED, Because.WEEKLY),
        (station(MAKEUP_SHORT, NONE), "10-10 09:59", Kind.CLOSED, Because.MAKEUP_WORKDAY),
        (station(MAKEUP_SHORT, NONE), "10-10 10:00", Kind.FREE, Because.MAKEUP_WORKDAY),
        (station(MAKEUP_SHUT, NONE), "10-10 10:00", Kind.CLOSED, Because.MAKEUP_WORKDAY),
        (station(MAKEUP_SHUT, NONE), "10-17 10:00", Kind.FREE, Because.WEEKLY),
    ],
)
def test_special_day_replaces_the_weekday_and_is_the_reason(
    rules: StationRules, at: str, kind: Kind, because: Because
) -> None:
    mode = mode_at(rules, CALENDAR, local(f"2026-{at}"))
    assert (mode.kind, mode.because, mode.calendar_known) == (kind, because, True)


def test_window_over_midnight_keeps_the_reason_of_the_day_it_starts() -> None:
    rules = station(None, weekly(Span(1320, 1800), public_holiday=(Span(1380, 1500),)))
    into_holiday = mode_at(rules, CALENDAR, local("2026-10-01 05:00"))
    assert (into_holiday.kind, into_holiday.because) == (Kind.SCAN, Because.WEEKLY)
    out_of_holiday = mode_at(rules, CALENDAR, local("2026-10-03 00:30"))
    assert (out_of_holiday.kind, out_of_holiday.because) == (Kind.SCAN, Because.PUBLIC_HOLIDAY)
    assert out_of_holiday.until == local("2026-10-03 01:00")


def test_change_of_reason_alone_does_not_end_a_mode() -> None:
    rules = station(None, weekly(*ALL_DAY, public_holiday=ALL_DAY))
    at = local("2026-09-30 12:00")
    assert mode_at(rules, CALENDAR, at).until is None
    windows = mode_windows(rules, CALENDAR, at, local("2026-10-03 12:00"))
    assert [window.because for window in windows] == [
        Because.WEEKLY,
        Because.PUBLIC_HOLIDAY,
        Because.WEEKLY,
    ]
    assert windows[1].from_at == local("2026-10-01 00:00")
    assert windows[1].until_at == local("2026-10-03 00:00")


def test_unknown_year_is_plain_weekdays_and_says_so() -> None:
    unknown = Calendar({date(2027, 1, 1): DayClass.PUBLIC_HOLIDAY}, frozenset({2026}))
    rules = station(HOLIDAY_SHUT, NONE)
    mode = mode_at(rules, unknown, local("2027-01-01 10:00"))
    assert (mode.kind, mode.because, mode.calendar_known) == (Kind.FREE, Because.WEEKLY, False)


def test_calendar_is_known_by_the_year_of_the_day_that_decided() -> None:
    rules = station(None, weekly(Span(1320, 1800)))
    assert mode_at(rules, CALENDAR, local("2027-01-01 05:00")).calendar_known
    assert not mode_at(rules, CALENDAR, local("2027-01-01 12:00")).calendar_known
    assert not mode_at(rules, CALENDAR, local("2026-01-01 05:00")).calendar_known


def change(
    kind: ChangeKind,
    tier: Tier = Tier.OVERRIDE,
    *,
    begins: str = "2026-11-23 00:00",
    ends: str = "2026-12-31 00:00",
    created: str = "2026-11-01 00:00",
) -> Change:
    """A change of mode, with its instants in UTC."""
    return Change(kind, tier, utc(begins), utc(ends), utc(created))


@pytest.mark.parametrize(
    ("kind", "tier", "expected", "because"),
    [
        (ChangeKind.CLOSED, Tier.EXCEPTION, Kind.CLOSED, Because.EXCEPTION),
        (ChangeKind.CLOSED, Tier.OVERRIDE, Kind.CLOSED, Because.OVERRIDE),
        (ChangeKind.STAFFED, Tier.EXCEPTION, Kind.FREE, Because.EXCEPTION),
        (ChangeKind.HELD_OPEN, Tier.OVERRIDE, Kind.FREE, Because.OVERRIDE),
        (ChangeKind.ACCESS, Tier.EXCEPTION, Kind.SCAN, Because.EXCEPTION),
        (ChangeKind.STAFF_ONLY, Tier.OVERRIDE, Kind.STAFF_ONLY, Because.OVERRIDE),
        (ChangeKind.LOCKDOWN, Tier.OVERRIDE, Kind.CLOSED, Because.EMERGENCY),
        (ChangeKind.EVACUATION, Tier.OVERRIDE, Kind.EVACUATION, Because.EMERGENCY),
    ],
)
def test_each_kind_of_change_makes_its_mode(
    kind: ChangeKind, tier: Tier, expected: Kind, because: Because
) -> None:
    for hours in (None, weekly(*ALL_DAY)):
        mode = mode_at(station(None, hours, change(kind, tier)), CALENDAR, utc("2026-11-24 00:00"))
        assert (mode.kind, mode.because) == (expected, because)


LADDER = (
    change(ChangeKind.EVACUATION, created="2026-11-01 00:00"),
    change(ChangeKind.LOCKDOWN, created="2026-11-02 00:00"),
    change(ChangeKind.STAFF_ONLY, Tier.OVERRIDE, created="2026-11-03 00:00"),
    change(ChangeKind.ACCESS, Tier.EXCEPTION, created="2026-11-04 00:00"),
)
LADDER_KINDS = (Kind.EVACUATION, Kind.CLOSED, Kind.STAFF_ONLY, Kind.SCAN)


@pytest.mark.parametrize("higher", range(4))
@pytest.mark.parametrize("lower", range(1, 5))
def test_each_tier_stands_above_each_lower_one_though_it_is_older(higher: int, lower: int) -> None:
    if higher >= lower:
        return
    below = LADDER[lower : lower + 1]  # The fourth is the hours themselves.
    for changes in permutations((LADDER[higher], *below)):
        mode = mode_at(station(weekly(*ALL_DAY), None, *changes), CALENDAR, utc("2026-11-24"))
        assert mode.kind is LADDER_KINDS[higher]


@pytest.mark.parametrize("tier", [Tier.EXCEPTION, Tier.OVERRIDE])
def test_newest_wins_within_a_tier_then_later_from_then_the_stricter(tier: Tier) -> None:
    def winner(*changes: Change) -> Kind:
        kinds = {
            mode_at(station(None, None, *order), CALENDAR, utc("2026-11-24 00:00")).kind
            for order in permutations(changes)
        }
        (kind,) = kinds
        return kind

    old = change(ChangeKind.CLOSED, tier, begins="2026-11-23 12:00")
    new = change(ChangeKind.STAFFED, tier, created="2026-11-02 00:00")
    assert winner(old, new) is Kind.FREE
    earlier = change(ChangeKind.CLOSED, tier)
    later = change(ChangeKind.ACCESS, tier, begins="2026-11-23 12:00")
    assert winner(earlier, later) is Kind.SCAN
    assert winner(change(ChangeKind.STAFFED, tier), change(ChangeKind.CLOSED, tier)) is Kind.CLOSED


@pytest.mark.parametrize("kind", ChangeKind)
@pytest.mark.parametrize("written", ["before it began", "when it began", "since it began"])
def test_what_had_begun_when_it_was_written_holds_by_any_clock_if_it_is_an_emergency(
    kind: ChangeKind, written: str
) -> None:
    created = {
        "before it began": "2026-11-23 11:59",
        "when it began": "2026-11-23 12:00",
        "since it began": "2026-11-23 12:01",
    }[written]
    made = change(kind, begins="2026-11-23 12:00", ends="2026-11-23 14:00", created=created)
    rules = station(None, weekly(*ALL_DAY), made)
    behind = utc("2026-11-23 11:00")
    is_emergency = kind in (ChangeKind.LOCKDOWN, ChangeKind.EVACUATION)
    holds = is_emergency and written != "before it began"
    then = utc("2026-11-23 12:30") if holds else behind
    assert mode_now(rules, CALENDAR, behind) == mode_at(rules, CALENDAR, then)
    assert mode_at(rules, CALENDAR, behind).kind is Kind.SCAN
    for later in ("2026-11-23 12:30", "2026-11-23 14:00"):
        assert mode_now(rules, CALENDAR, utc(later)) == mode_at(rules, CALENDAR, utc(later))


def test_change_holds_exactly_from_its_first_instant_to_before_its_last() -> None:
    rules = station(
        None,
        weekly(*ALL_DAY),
        change(ChangeKind.CLOSED, begins="2026-11-24 10:00:00.5", ends="2026-11-24 11:00"),
    )
    begins, ends = utc("2026-11-24 10:00:00.500"), utc("2026-11-24 11:00")
    assert mode_at(rules, CALENDAR, begins - MICRO).kind is Kind.SCAN
    assert mode_at(rules, CALENDAR, begins - MICRO).until == begins
    assert mode_at(rules, CALENDAR, begins) == Mode(Kind.CLOSED, Because.OVERRIDE, ends, True)
    assert mode_at(rules, CALENDAR, ends - MICRO).kind is Kind.CLOSED
    assert mode_at(rules, CALENDAR, ends).kind is Kind.SCAN


def test_exception_cuts_a_window_over_midnight_and_gives_it_back() -> None:
    closed = Change(
        ChangeKind.CLOSED,
        Tier.EXCEPTION,
        local("2026-11-26 00:00"),
        local("2026-11-26 03:00"),
        utc("2026-11-01"),
    )
    rules = station(None, NIGHT.access, closed)
    windows = mode_windows(rules, CALENDAR, local("2026-11-25 12:00"), local("2026-11-26 12:00"))
    assert [(w.kind, w.because, local_hour(w.from_at, SHANGHAI)) for w in windows] == [
        (Kind.CLOSED, Because.WEEKLY, 12),
        (Kind.SCAN, Because.WEEKLY, 22),
        (Kind.CLOSED, Because.EXCEPTION, 0),
        (Kind.SCAN, Because.WEEKLY, 3),
        (Kind.CLOSED, Because.WEEKLY, 6),
    ]


def test_until_looks_through_a_change_that_changes_nothing() -> None:
    held = change(ChangeKind.HELD_OPEN, begins="2026-11-23 09:00", ends="2026-11-23 12:00")
    rules = station(weekly(*DAY_STAFF), weekly(*ALL_DAY), held)
    mode = mode_at(rules, CALENDAR, local("2026-11-23 08:00"))  # 18:00 there is 10:00 UTC.
    assert (mode.kind, mode.until) == (Kind.FREE, utc("2026-11-23 12:00"))


def test_newer_change_uncovers_the_older_one_when_it_ends() -> None:
    long = change(ChangeKind.CLOSED)
    short = change(
        ChangeKind.STAFFED,
        begins="2026-11-24 01:00",
        ends="2026-11-24 02:00",
        created="2026-11-20 00:00",
    )
    rules = station(None, weekly(*ALL_DAY), long, short)
    assert mode_at(rules, CALENDAR, utc("2026-11-24 00:00")).until == utc("2026-11-24 01:00")
    assert mode_at(rules, CALENDAR, utc("2026-11-24 01:30")).kind is Kind.FREE
    again = mode_at(rules, CALENDAR, utc("2026-11-24 02:00"))
    assert (again.kind, again.until) == (Kind.CLOSED, None)


def test_change_that_ends_before_it_begins_never_holds() -> None:
    empty = change(ChangeKind.CLOSED, begins="2026-11-24 01:00", ends="2026-11-24 01:00")
    backwards = change(ChangeKind.CLOSED, begins="2026-11-24 03:00", ends="2026-11-24 00:00")
    rules = station(None, weekly(*ALL_DAY), empty, backwards)
    assert mode_at(rules, CALENDAR, utc("2026-11-24 01:00")).kind is Kind.SCAN
    assert mode_at(rules, CALENDAR, utc("2026-11-24 00:00")).until is None


BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("span", "at", "kind", "until"),
    [
        # 2026-03-29: 02:00 jumps to 03:00, at 01:00 UTC. A time within is the jump itself.
        (Span(150, 600), "2026-03-29 00:59:59.999", Kind.CLOSED, "2026-03-29 01:00"),
        (Span(150, 600), "2026-03-29 01:00", Kind.SCAN, "2026-03-29 08:00"),
        (Span(60, 150), "2026-03-29 00:30", Kind.SCAN, "2026-03-29 01:00"),
        (Span(60, 150), "2026-03-29 01:00", Kind.CLOSED, "2026-03-29 23:00"),
        # A window wholly within the jump does not exist on that day.
        (Span(125, 170), "2026-03-29 00:30", Kind.CLOSED, "2026-03-30 00:05"),
        # Over the night of the jump: one hour shorter.
        (Span(1320, 1800), "2026-03-28 21:00", Kind.SCAN, "2026-03-29 04:00"),
        # 2026-10-25: 03:00 goes back to 02:00, at 01:00 UTC. A time is its first showing.
        (Span(150, 600), "2026-10-25 00:29:59.999", Kind.CLOSED, "2026-10-25 00:30"),
        (Span(150, 600), "2026-10-25 00:30", Kind.SCAN, "2026-10-25 09:00"),
        (Span(60, 150), "2026-10-25 00:29", Kind.SCAN, "2026-10-25 00:30"),
        (Span(60, 150), "2026-10-25 01:29", Kind.CLOSED, "2026-10-26 00:00"),
        (Span(1320, 1800), "2026-10-24 20:00", Kind.SCAN, "2026-10-25 05:00"),
    ],
)
def test_clock_changes_move_windows_by_the_first_showing_of_their_times(
    span: Span, at: str, kind: Kind, until: str
) -> None:
    rules = station(None, weekly(span), timezone=BERLIN)
    mode = mode_at(rules, CALENDAR, utc(at))
    assert (mode.kind, mode.until) == (kind, utc(until))


def test_instant_may_be_given_in_the_second_showing_of_an_hour() -> None:
    rules = station(None, weekly(Span(60, 180)), timezone=BERLIN)
    for fold in (0, 1):
        at = local("2026-10-25 02:30", BERLIN, fold=fold)
        assert mode_at(rules, CALENDAR, at).until == utc("2026-10-25 02:00")


@pytest.mark.parametrize(
    ("timezone", "day"),
    [
        ("America/Santiago", "2026-09-06"),  # Midnight itself is jumped over.
        ("America/Havana", "2026-11-01"),  # Midnight is shown twice.
        ("America/St_Johns", "2010-11-07"),  # Back over a midnight shown a minute before.
        ("Australia/Lord_Howe", "2026-04-05"),  # Half an hour back.
        ("Asia/Kathmandu", "2026-04-05"),  # Not a whole hour from UTC.
        ("Pacific/Apia", "2011-12-30"),  # A day that never was.
        ("Africa/Monrovia", "1972-01-07"),  # 44 minutes and 30 seconds.
        ("America/Juneau", "1867-10-19"),  # A day that was twice.
    ],
)
def test_exotic_days_have_no_gap_and_agree_with_themselves(timezone: str, day: str) -> None:
    rules = station(
        weekly(Span(0, 61), Span(150, 600), Span(1380, 1439)),
        weekly(Span(1320, 1800)),
        timezone=timezone,
    )
    full = station(None, weekly(*ALL_DAY), timezone=timezone)
    from_at, until_at = utc(day) - timedelta(days=2), utc(day) + timedelta(days=3)
    assert len(mode_windows(full, NO_CALENDAR, from_at, until_at)) == 1
    windows = mode_windows(rules, NO_CALENDAR, from_at, until_at)
    assert_contiguous(windows, from_at, until_at)
    for window in windows:
        for at in (window.from_at, window.until_at - MICRO):
            mode = mode_at(rules, NO_CALENDAR, at)
            assert (mode.kind, mode.because) == (window.kind, window.because)


def test_day_that_has_begun_is_not_left_when_clocks_go_back_over_midnight() -> None:
    # St. John's, 2010-11-07 02:31 UTC: from 00:01 back to 23:01 of the day before.
    rules = station(weekly(Span(0, 61)), timezone="America/St_Johns")
    midnight, second_half_past_eleven = utc("2010-11-07 02:30"), utc("2010-11-07 03:00")
    for at in (midnight, second_half_past_eleven):
        mode = mode_at(rules, CALENDAR, at)
        assert (mode.kind, mode.until) == (Kind.FREE, utc("2010-11-07 04:31"))
    windows = mode_windows(rules, CALENDAR, utc("2010-11-07 02:00"), second_half_past_eleven)
    assert [(window.kind, window.from_at) for window in windows] == [
        (Kind.CLOSED, utc("2010-11-07 02:00")),
        (Kind.FREE, midnight),
    ]


@pytest.mark.parametrize(
    ("at", "timezone", "day", "hour"),
    [
        ("2026-11-23 15:59:59.999", SHANGHAI, date(2026, 11, 23), 23),
        ("2026-11-23 16:00", SHANGHAI, date(2026, 11, 24), 0),
        ("2026-11-23 00:00", "America/New_York", date(2026, 11, 22), 19),
        ("2026-11-23 18:20", "Asia/Kathmandu", date(2026, 11, 24), 0),
    ],
)
def test_local_day_and_hour(at: str, timezone: str, day: date, hour: int) -> None:
    assert local_day(utc(at), timezone) == day
    assert local_hour(utc(at), timezone) == hour


@pytest.mark.parametrize("at", ["0001-01-01", "9999-12-31 23:59:59.999999"])
@pytest.mark.parametrize("offset", [-14, 0, 14])
@pytest.mark.parametrize("timezone", [SHANGHAI, "Pacific/Kiritimati", "Pacific/Niue"])
def test_first_and_last_instant_are_answered(at: str, offset: int, timezone: str) -> None:
    aware = wall(at).replace(tzinfo=FixedZone(timedelta(hours=offset)))
    mode = mode_at(station(None, weekly(*ALL_DAY), timezone=timezone), CALENDAR, aware)
    assert mode == Mode(Kind.SCAN, Because.WEEKLY, None, False)


def test_naive_instant_is_refused() -> None:
    naive = wall("2026-11-23")
    with pytest.raises(ValueError, match="no zone"):
        mode_at(SMART, CALENDAR, naive)
    with pytest.raises(ValueError, match="no zone"):
        Change(ChangeKind.CLOSED, Tier.OVERRIDE, naive, naive, naive)


def test_change_keeps_its_instants_in_utc() -> None:
    # Compared by their wall clocks, this change would end before it begins.
    first, second = (local("2026-10-25 02:30", BERLIN, fold=fold) for fold in (0, 1))
    again = Change(ChangeKind.CLOSED, Tier.OVERRIDE, first, second, first)
    rules = station(None, weekly(*ALL_DAY), again, timezone=BERLIN)
    assert mode_at(rules, CALENDAR, utc("2026-10-25 01:00")).until == utc("2026-10-25 01:30")


def test_empty_range_has_no_windows() -> None:
    at = utc("2026-11-23")
    assert mode_windows(SMART, CALENDAR, at, at) == ()
    assert mode_windows(SMART, CALENDAR, at, at - MICRO) == ()


def assert_contiguous(windows: tuple[Window, ...], from_at: datetime, until_at: datetime) -> None:
    """The windows cover the range without gap, overlap or needless cut."""
    assert windows[0].from_at == from_at
    assert windows[-1].until_at == until_at
    for window in windows:
        assert window.from_at < window.until_at
        assert window.from_at.tzinfo is UTC
    for earlier, later in pairwise(windows):
        assert earlier.until_at == later.from_at
        assert (earlier.kind, earlier.because) != (later.kind, later.because)


MINUTES = st.sampled_from([0, 1, 60, 119, 120, 150, 180, 480, 720, 1080, 1320, 1439]) | st.integers(
    0, 1439
)


@st.composite
def days(draw: st.DrawFn) -> tuple[Span, ...]:
    """Windows of one day that do not overlap among themselves."""
    edges = sorted(draw(st.sets(MINUTES, max_size=6)))
    spans = [Span(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    if len(edges) % 2 and edges[-1] > 0:
        # The last window may run over midnight.
        spans.append(Span(edges[-1], edges[-1] + draw(st.integers(1, 1439))))
    return tuple(spans)


HOURS = st.builds(
    Hours,
    st.tuples(*(days() for _ in range(7))),
    st.none() | days(),
    st.none() | days(),
)
INSTANTS = st.datetimes(
    wall("2026-03-20"), wall("2026-11-10"), timezones=st.just(UTC)
) | st.datetimes(wall("2026-10-20"), wall("2026-10-28"), timezones=st.just(UTC))
ZONES = st.sampled_from([SHANGHAI, BERLIN, "America/Santiago", "Australia/Lord_Howe"])
CHANGES = st.lists(
    st.builds(
        lambda kind, tier, at, length, created: Change(kind, tier, at, at + length, created),
        st.sampled_from(ChangeKind),
        st.sampled_from(Tier),
        INSTANTS,
        st.timedeltas(timedelta(minutes=-1), timedelta(days=20)),
        INSTANTS,
    ),
    max_size=4,
)
CALENDARS = st.builds(
    Calendar,
    st.dictionaries(
        st.dates(date(2026, 3, 15), date(2026, 11, 20)), st.sampled_from(DayClass), max_size=60
    ),
    st.sampled_from([frozenset({2026}), frozenset()]),
)
STATIONS = st.builds(StationRules, ZONES, st.none() | HOURS, st.none() | HOURS, CHANGES.map(tuple))


@settings(max_examples=80, deadline=None)
@given(STATIONS, CALENDARS, INSTANTS, st.floats(0, 1, exclude_max=True))
def test_mode_holds_until_its_end_and_changes_there(
    rules: StationRules, calendar: Calendar, at: datetime, part: float
) -> None:
    mode = mode_at(rules, calendar, at)
    end = mode.until or at + timedelta(days=14)
    assert end > at
    assert end <= at + timedelta(days=14)
    between = min(at + (end - at) * part, end - MICRO)
    assert mode_at(rules, calendar, between).kind is mode.kind
    assert mode_at(rules, calendar, end - MICRO).kind is mode.kind
    if mode.until is not None:
        assert mode_at(rules, calendar, mode.until).kind is not mode.kind


@settings(max_examples=80, deadline=None)
@given(STATIONS, CALENDARS, INSTANTS, st.timedeltas(MICRO, timedelta(days=16)))
def test_windows_say_what_the_mode_says(
    rules: StationRules, calendar: Calendar, from_at: datetime, length: timedelta
) -> None:
    windows = mode_windows(rules, calendar, from_at, from_at + length)
    assert_contiguous(windows, from_at, from_at + length)
    for window in windows:
        middle = window.from_at + (window.until_at - window.from_at) / 2
        for at in (window.from_at, middle, window.until_at - MICRO):
            mode = mode_at(rules, calendar, at)
            assert (mode.kind, mode.because) == (window.kind, window.because)


@settings(max_examples=80, deadline=None)
@given(STATIONS, CALENDARS, INSTANTS)
def test_change_in_force_hides_the_hours_and_none_leaves_them(
    rules: StationRules, calendar: Calendar, at: datetime
) -> None:
    mode = mode_at(rules, calendar, at)
    by_hours = mode_at(StationRules(rules.timezone, rules.staffed, rules.access), calendar, at)
    there = [change for change in rules.changes if change.from_at <= at < change.until_at]
    holding = [change for change in there if change.tier is not Tier.STAFF_ABSENT]
    if mode.because is Because.STAFF_ABSENT:
        assert len(holding) < len(there)
        assert mode.kind is Kind.SCAN
        return
    if not holding:
        assert (mode.kind, mode.because) == (by_hours.kind, by_hours.because)
        assert there == [] or mode.kind is not Kind.FREE
        return
    alone = StationRules(rules.timezone, None, None, tuple(holding))
    assert (mode.kind, mode.because) == (
        mode_at(alone, calendar, at).kind,
        mode_at(alone, calendar, at).because,
    )
    assert mode.because in {Because.EMERGENCY, Because.OVERRIDE, Because.EXCEPTION}


NAMES = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")


def as_osm(hours: Hours) -> str:
    """The same week in the words of OpenStreetMap; commas join rules without replacing any."""
    rows = [
        f"{NAMES[weekday]} {span.opens_min // 60:02d}:{span.opens_min % 60:02d}"
        f"-{span.closes_min // 60:02d}:{span.closes_min % 60:02d}"
        for weekday, spans in enumerate(hours.regular)
        for span in spans
    ]
    return ", ".join(rows) or "off"


@settings(max_examples=150, deadline=None)
@given(
    st.builds(Hours, st.tuples(*(days() for _ in range(7)))),
    st.datetimes(wall("2026-01-01"), wall("2026-12-31")),
)
@example(Hours((DAY_STAFF,) * 7), wall("2026-11-23 08:00"))
@example(Hours((DAY_STAFF,) * 7), wall("2026-11-23 18:00"))
@example(Hours((ALL_DAY,) * 7), wall("2026-11-23 00:00"))
def test_plain_weeks_agree_with_an_independent_implementation(hours: Hours, at: datetime) -> None:
    oracle = OpeningHours(as_osm(hours))
    mode = mode_at(station(hours, NONE), NO_CALENDAR, at.replace(tzinfo=ZoneInfo(SHANGHAI)))
    assert (mode.kind is Kind.FREE) is oracle.is_open(at)
    expected = oracle.next_change(at)
    if expected is not None and expected < at + timedelta(days=14):
        assert mode.until == expected.replace(tzinfo=ZoneInfo(SHANGHAI))
    else:
        assert mode.until is None


NOBODY_CAME = change(ChangeKind.ACCESS, Tier.STAFF_ABSENT)


@pytest.mark.parametrize(
    ("changes", "kind", "because"),
    [
        ((), Kind.SCAN, Because.STAFF_ABSENT),
        ((change(ChangeKind.STAFFED, Tier.EXCEPTION),), Kind.SCAN, Because.STAFF_ABSENT),
        ((change(ChangeKind.HELD_OPEN, Tier.EXCEPTION),), Kind.FREE, Because.EXCEPTION),
        ((change(ChangeKind.CLOSED, Tier.EXCEPTION),), Kind.CLOSED, Because.EXCEPTION),
        ((change(ChangeKind.STAFFED, Tier.OVERRIDE),), Kind.FREE, Because.OVERRIDE),
        ((change(ChangeKind.LOCKDOWN, Tier.OVERRIDE),), Kind.CLOSED, Because.EMERGENCY),
        ((change(ChangeKind.EVACUATION, Tier.OVERRIDE),), Kind.EVACUATION, Because.EMERGENCY),
    ],
)
def test_absent_staff_turn_to_scanning_only_what_they_would_hold_open(
    changes: tuple[Change, ...], kind: Kind, because: Because
) -> None:
    for order in permutations((NOBODY_CAME, *changes)):
        mode = mode_at(station(weekly(*ALL_DAY), None, *order), CALENDAR, utc("2026-11-24 00:00"))
        assert (mode.kind, mode.because) == (kind, because)


def test_absent_staff_change_nothing_where_nobody_is_awaited() -> None:
    closed = mode_at(station(None, None, NOBODY_CAME), CALENDAR, utc("2026-11-24 00:00"))
    assert (closed.kind, closed.because) == (Kind.CLOSED, Because.NO_ACCESS_HOURS)
    scan = station(None, weekly(*ALL_DAY), NOBODY_CAME)
    assert mode_at(scan, CALENDAR, utc("2026-11-24 00:00")).because is Because.WEEKLY


def test_the_nearest_unit_decides_what_a_branch_inherits() -> None:
    said = {"1": 30, "1.7": 0, "1.70": 60}
    assert inherited("1.7.3", said) == 0
    assert inherited("1.70", said) == 60
    assert inherited("1.8.9", said) == 30
    assert inherited("2", said) is None
