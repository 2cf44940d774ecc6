"""What holds at a place: its hours and mode, its branch of the union, how far it is.

`hours` says when a station means to be open, `local_time` turns wall clocks into instants,
`mode` is the one function that says what holds (law 1), `paths` carries the union tree,
`nearby` the ground. All of it is pure: the instant and the calendar are arguments.
"""

from app.places.rules.hours import Hours, Span, hours_to_json, parse_hours
from app.places.rules.local_time import (
    CITY_ZONE,
    EARLIEST,
    LATEST,
    is_timezone,
    local_day,
    local_hour,
)
from app.places.rules.mode import (
    Because,
    Calendar,
    Change,
    ChangeKind,
    DayClass,
    Kind,
    Mode,
    Published,
    StationRules,
    Tier,
    Window,
    mode_at,
    mode_now,
    mode_windows,
    promised_windows,
    staffed_time,
)
from app.places.rules.nearby import (
    MAX_RADIUS_M,
    cells_around,
    distance_m,
    grid_cell,
    walking_minutes,
)
from app.places.rules.paths import child_path, inherited, is_within, under_bounds

__all__ = [
    "CITY_ZONE",
    "EARLIEST",
    "LATEST",
    "MAX_RADIUS_M",
    "Because",
    "Calendar",
    "Change",
    "ChangeKind",
    "DayClass",
    "Hours",
    "Kind",
    "Mode",
    "Published",
    "Span",
    "StationRules",
    "Tier",
    "Window",
    "cells_around",
    "child_path",
    "distance_m",
    "grid_cell",
    "hours_to_json",
    "inherited",
    "is_timezone",
    "is_within",
    "local_day",
    "local_hour",
    "mode_at",
    "mode_now",
    "mode_windows",
    "parse_hours",
    "promised_windows",
    "staffed_time",
    "under_bounds",
    "walking_minutes",
]
