"""The arithmetic of reports, pure: periods, counters, a station's day, rates and percentiles."""

from app.reports.rules.arithmetic import (
    BIN,
    LONGEST,
    Completeness,
    Inside,
    Life,
    Meter,
    Period,
    Profile,
    Slot,
    Spread,
    completeness,
    known_of,
    nearest_rank,
    rate,
    spread,
)

__all__ = [
    "BIN",
    "LONGEST",
    "Completeness",
    "Inside",
    "Life",
    "Meter",
    "Period",
    "Profile",
    "Slot",
    "Spread",
    "completeness",
    "known_of",
    "nearest_rank",
    "rate",
    "spread",
]
