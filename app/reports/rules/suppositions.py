"""What is supposed to have been otherwise: hours, places, and what is not to have been."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from app.doors.rules import Reason
from app.places.rules import ChangeKind, Hours, StationRules, Tier


class Ignored(StrEnum):
    """What is supposed not to have been: dated changes by their tier, or a check's cause."""

    EXCEPTION = "exception"
    OVERRIDE = "override"
    """Emergencies stand whatever is ignored."""
    STAFF_ABSENT = "staff_absent"
    CONTROLLER_OFFLINE = "controller_offline"
    DISPLAY_REQUIRED = "display_required"
    RATE_LIMITED = "rate_limited"
    IMPOSSIBLE_TRAVEL = "impossible_travel"


TIERS = {
    Ignored.EXCEPTION: Tier.EXCEPTION,
    Ignored.OVERRIDE: Tier.OVERRIDE,
    Ignored.STAFF_ABSENT: Tier.STAFF_ABSENT,
}

EMERGENCIES = (ChangeKind.LOCKDOWN, ChangeKind.EVACUATION)


@dataclass(frozen=True, slots=True)
class OtherHours:
    """Hours instead of a station's own; None: none at all, as in a station's description."""

    hours: Hours | None


@dataclass(frozen=True, slots=True)
class Supposition:
    """What is supposed to have been otherwise; None: as it is."""

    staffed: OtherHours | None = None
    access: OtherHours | None = None
    capacity: int | None = None
    max_stay: timedelta | None = None
    ignored: frozenset[Ignored] = frozenset()

    @property
    def moves_modes(self) -> bool:
        """Whether another mode may hold than was recorded."""
        return bool(self.staffed or self.access or self.ignored & TIERS.keys())

    def rules_of(self, rules: StationRules) -> StationRules:
        """Give a station's rules as they are supposed to have been."""
        tiers = {TIERS[each] for each in self.ignored & TIERS.keys()}
        return StationRules(
            timezone=rules.timezone,
            staffed=self.staffed.hours if self.staffed else rules.staffed,
            access=self.access.hours if self.access else rules.access,
            changes=tuple(
                change
                for change in rules.changes
                if change.tier not in tiers or change.kind in EMERGENCIES
            ),
        )

    @property
    def ignored_reasons(self) -> frozenset[Reason]:
        """Give the refusals whose cause is supposed not to have been."""
        return frozenset(Reason(each.value) for each in self.ignored - TIERS.keys())
