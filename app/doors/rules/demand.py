"""The half hour in which refusals of one worker at one station are one demand (law 8). Pure."""

from datetime import UTC, datetime, timedelta

HALF_HOUR = timedelta(minutes=30)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def half_hour_of(at: datetime) -> datetime:
    """Say when the half hour of an instant began."""
    return at - (at - EPOCH) % HALF_HOUR
