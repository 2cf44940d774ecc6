"""What a recorded answer proves of its instant, so that it can be decided again. Pure.

A refusal names the first check that failed. What came before it had passed; what would have come
after it nobody looked at, and it is taken as passed. So the facts that are built here give the
recorded answer again where mode and places are as they were, by the one `decide()`.
"""

from app.doors.rules.decision import Facts, Place, Reason
from app.doors.rules.demand import EPOCH
from app.places.rules import Mode

TOKEN_REASONS = frozenset(
    {
        Reason.TOKEN_INVALID,
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_REVOKED,
        Reason.WRONG_KIND,
        Reason.PRESENCE_REQUIRED,
    }
)
"""What the check of the code itself says."""

_HERE, _FAR = Place(0.0, 0.0, EPOCH), Place(0.0, 90.0, EPOCH)
"""Two places of one instant that nobody travels between."""


def facts_on_record(
    reason: Reason,
    mode: Mode,
    *,
    controller_heard: bool,
    inside: int,
    capacity: int,
    party_size: int,
    counted_already: bool,
) -> Facts:
    """Build the facts of a recorded scan: what its reason proves, and what is said besides.

    Which of the two limits a `rate_limited` scan had met is not recorded; it meets the one that
    is looked at in every mode.
    """
    travels = reason is Reason.IMPOSSIBLE_TRAVEL
    return Facts(
        token=reason if reason in TOKEN_REASONS else Reason.OK,
        worker_blocked=reason is Reason.WORKER_BLOCKED,
        door_retired=reason is Reason.DOOR_RETIRED,
        needs_display=reason is Reason.DISPLAY_REQUIRED,
        mode=mode,
        scans_last_minute=1 if reason is Reason.RATE_LIMITED else 0,
        scan_limit=1,
        here=_HERE if travels else None,
        last_opened=_FAR if travels else None,
        controller_heard=controller_heard,
        inside=inside,
        capacity=capacity,
        party_size=party_size,
        counted_already=counted_already,
    )
