"""Who may do what, as the contract says it."""

import uuid

import pytest

from app.people.rules import ALLOWED, Permission, Role, allows, code_mac, owner_key

CITY_ONLY = {
    Permission.EDIT_CALENDAR,
    Permission.EDIT_ADMINS,
    Permission.EDIT_KEYS,
    Permission.EDIT_WEBHOOKS,
}


def test_every_role_has_a_policy() -> None:
    assert set(ALLOWED) == set(Role)


def test_a_city_admin_may_do_everything() -> None:
    assert ALLOWED[Role.CITY_ADMIN] == set(Permission)


def test_a_unit_admin_may_do_everything_but_keys_calendar_and_admins() -> None:
    assert set(Permission) - ALLOWED[Role.UNIT_ADMIN] == CITY_ONLY


def test_an_auditor_only_reads() -> None:
    assert ALLOWED[Role.AUDITOR] == {
        permission for permission in Permission if permission.value.startswith("read_")
    }


@pytest.mark.parametrize(
    ("permission", "may"),
    [
        (Permission.EDIT_HOURS, True),
        (Permission.EDIT_FACILITIES, True),
        (Permission.COUNT_WALK_INS, True),
        (Permission.UNLOCK, True),
        (Permission.READ_STATIONS, True),
        (Permission.OVERRIDE, False),
        (Permission.EDIT_STATIONS, False),
        (Permission.EDIT_DOORS, False),
        (Permission.REVOKE_POSTERS, False),
        (Permission.ENROL_CONTROLLERS, False),
        (Permission.READ_WORKERS, False),
        (Permission.EDIT_ADMINS, False),
    ],
)
def test_a_station_keeper_keeps_his_station(permission: Permission, may: bool) -> None:
    assert allows(Role.STATION_KEEPER, permission) is may


def test_the_owner_key_depends_on_the_secret_and_on_the_worker() -> None:
    one, other = uuid.uuid4(), uuid.uuid4()
    keys = {owner_key(secret, who) for secret in (b"a" * 32, b"b" * 32) for who in (one, other)}
    assert len(keys) == 4
    assert {len(key) for key in keys} == {16}
    assert owner_key(b"a" * 32, one) == owner_key(b"a" * 32, one)


def test_equal_codes_of_two_challenges_have_different_macs() -> None:
    assert code_mac(b"p", "1" * 32, "000000") != code_mac(b"p", "2" * 32, "000000")
    assert code_mac(b"p", "1" * 32, "000000") != code_mac(b"q", "1" * 32, "000000")
