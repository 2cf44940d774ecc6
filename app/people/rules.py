"""Who may do what, and what stands for a worker where his name must not. Pure."""

import hmac
import uuid
from collections.abc import Mapping
from enum import StrEnum


class Permission(StrEnum):
    """Something an administrator may be allowed to do."""

    READ_UNITS = "read_units"
    EDIT_UNITS = "edit_units"
    READ_STATIONS = "read_stations"
    EDIT_STATIONS = "edit_stations"
    EDIT_HOURS = "edit_hours"
    """Dated exceptions."""
    OVERRIDE = "override"
    """Overrides: lockdown and evacuation among them."""
    EDIT_FACILITIES = "edit_facilities"
    COUNT_WALK_INS = "count_walk_ins"
    CONFIRM_STAFF = "confirm_staff"
    """Say that staff are there."""
    UNLOCK = "unlock"
    READ_CONTROLLERS = "read_controllers"
    ENROL_CONTROLLERS = "enrol_controllers"
    EDIT_DOORS = "edit_doors"
    PRINT_POSTERS = "print_posters"
    REVOKE_POSTERS = "revoke_posters"
    READ_ALERTS = "read_alerts"
    HANDLE_ALERTS = "handle_alerts"
    EDIT_WEBHOOKS = "edit_webhooks"
    READ_REPORTS = "read_reports"
    READ_AUDIT = "read_audit"
    READ_WORKERS = "read_workers"
    EDIT_WORKERS = "edit_workers"
    READ_CALENDAR = "read_calendar"
    EDIT_CALENDAR = "edit_calendar"
    EDIT_ADMINS = "edit_admins"
    EDIT_KEYS = "edit_keys"


class Role(StrEnum):
    """What an administrator may do, within a scope."""

    CITY_ADMIN = "city_admin"
    UNIT_ADMIN = "unit_admin"
    STATION_KEEPER = "station_keeper"
    AUDITOR = "auditor"


_READS = frozenset(
    {
        Permission.READ_UNITS,
        Permission.READ_STATIONS,
        Permission.READ_CONTROLLERS,
        Permission.READ_ALERTS,
        Permission.READ_REPORTS,
        Permission.READ_AUDIT,
        Permission.READ_WORKERS,
        Permission.READ_CALENDAR,
    }
)
_KEEPS = frozenset(
    {
        Permission.READ_STATIONS,
        Permission.READ_CONTROLLERS,
        Permission.READ_ALERTS,
        Permission.HANDLE_ALERTS,
        Permission.READ_REPORTS,
        Permission.READ_CALENDAR,
        Permission.EDIT_HOURS,
        Permission.EDIT_FACILITIES,
        Permission.COUNT_WALK_INS,
        Permission.CONFIRM_STAFF,
        Permission.UNLOCK,
    }
)
_CITY_ONLY = frozenset(
    {
        Permission.EDIT_CALENDAR,
        Permission.EDIT_ADMINS,
        Permission.EDIT_KEYS,
        Permission.EDIT_WEBHOOKS,
    }
)

ALLOWED: Mapping[Role, frozenset[Permission]] = {
    Role.AUDITOR: _READS,
    Role.STATION_KEEPER: _KEEPS,
    Role.UNIT_ADMIN: frozenset(Permission) - _CITY_ONLY,
    Role.CITY_ADMIN: frozenset(Permission),
}
"""What each role may do within its scope: the policy."""


def allows(role: Role, permission: Permission) -> bool:
    """Whether a role may do this at all; where is the scope's business."""
    return permission in ALLOWED[role]


def owner_key(secret: bytes, worker_id: uuid.UUID) -> bytes:
    """Give what stands for a worker in live rows: 16 bytes that reveal nobody without the key."""
    return hmac.digest(secret, b"owner:" + worker_id.bytes, "sha256")[:16]


def code_mac(pepper: bytes, challenge_id: str, code: str) -> bytes:
    """Give what a login code is compared by; the challenge id makes equal codes differ."""
    return hmac.digest(pepper, f"{challenge_id}:{code}".encode(), "sha256")
