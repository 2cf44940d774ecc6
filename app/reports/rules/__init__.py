"""The arithmetic of reports, pure: periods, counters, a station's day, slots of time, rates."""

from app.reports.rules.arithmetic import (
    LONGEST,
    Completeness,
    Period,
    completeness,
    nearest_rank,
    rate,
)
from app.reports.rules.branches import Branch, branches, roots_of
from app.reports.rules.slots import Bucket, By, Class, Slot, Slots, class_of, is_by_class, slots
from app.reports.rules.spans import Grain, Run, Span, cover, runs, span_end, span_of

__all__ = [
    "LONGEST",
    "Branch",
    "Bucket",
    "By",
    "Class",
    "Completeness",
    "Grain",
    "Period",
    "Run",
    "Slot",
    "Slots",
    "Span",
    "branches",
    "class_of",
    "completeness",
    "cover",
    "is_by_class",
    "nearest_rank",
    "rate",
    "roots_of",
    "runs",
    "slots",
    "span_end",
    "span_of",
]
