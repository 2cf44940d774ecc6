"""A door that is jammed is no opened door, however often its relay pulses (metrics 10)."""

import csv
import io
import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import new_id
from app.doors.rules import CommandState, Outcome, Reason
from app.doors.tables import Command, CommandKind, Door, Scan
from app.places.tables import Station
from app.runtime import Runtime
from tests.api.test_admin_reports import City, asks
from tests.api.test_admin_reports import city as city
from tests.conftest import NIGHT
from tests.support.counting import rolled
from tests.support.worlds import a_controller, a_door

pytestmark = pytest.mark.anyio

DAY = {"from": "2026-11-19", "to": "2026-11-20"}


async def let_in(
    tx: AsyncSession,
    station: Station,
    door: Door,
    controller_id: uuid.UUID,
    at: datetime,
    *,
    has_contact: bool,
    opened_after_s: float | None = None,
    state: CommandState = CommandState.EXECUTED,
) -> None:
    """Grant a scan whose relay pulses, unless it is said that something else became of it."""
    scan = Scan(
        id=new_id(),
        station_id=station.id,
        demand_key=new_id().bytes,
        outcome=Outcome.GRANTED,
        reason=Reason.OK,
        party_size=1,
        scanned_at=at,
        local_day=at.date(),
        local_hour=(at.hour + 8) % 24,
        changed_at=NIGHT,
    )
    tx.add(scan)
    await tx.flush()
    pulsed_at = at + timedelta(seconds=1) if state is CommandState.EXECUTED else None
    opened_at = None
    if pulsed_at is not None and opened_after_s is not None:
        opened_at = pulsed_at + timedelta(seconds=opened_after_s)
    tx.add(
        Command(
            id=new_id(),
            kind=CommandKind.UNLOCK,
            station_id=station.id,
            door_id=door.id,
            controller_id=controller_id,
            scan_id=scan.id,
            state=state,
            created_at=at,
            expires_at=at + timedelta(seconds=10),
            pulsed_at=pulsed_at,
            opened_at=opened_at,
            has_contact=has_contact,
            changed_at=NIGHT,
        )
    )


async def test_a_jammed_door_was_opened_for_nobody(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """Ten pulses at a door whose contact told of none: 0 %, and not 100 %, on the next day too.

    At a door without a contact nobody can say more than that the relay pulsed.
    """
    jammed, plain = city.stations
    first = datetime(2026, 11, 19, 4, tzinfo=UTC)
    async with runtime.database.write() as tx:
        for station, has_contact in ((jammed, True), (plain, False)):
            door = await a_door(tx, station, at=first)
            box, _ = await a_controller(tx, station, at=first)
            for number in range(10):
                at = first + timedelta(minutes=number)
                await let_in(tx, station, door, box, at, has_contact=has_contact)
            # On the day after, two were opened, one jammed, and one command came to nothing.
            for number, (after_s, state) in enumerate(
                (
                    (0.0, CommandState.EXECUTED),
                    (4.0, CommandState.EXECUTED),
                    (None, CommandState.EXECUTED),
                    (None, CommandState.EXPIRED),
                )
            ):
                await let_in(
                    tx,
                    station,
                    door,
                    box,
                    first + timedelta(days=1, minutes=number),
                    has_contact=has_contact,
                    opened_after_s=after_s if has_contact else None,
                    state=state,
                )
    await rolled(runtime)
    rows = (await asks(client, city.auditor, "access", **DAY)).json()["rows"]
    told = [(row["granted"], row["executed"], row["with_contact"], row["opened"]) for row in rows]
    assert told == [(10, 10, 10, 0), (10, 10, 0, 0)]
    assert [row["open_success_rate"] for row in rows] == [0.0, 1.0]
    assert [row["proven_open_rate"] for row in rows] == [0.0, None]
    (both,) = (await asks(client, city.auditor, "access", **DAY, by="all")).json()["rows"]
    assert both["open_success_rate"] == 0.5

    query = {"from": "2026-11-20", "to": "2026-11-21", "compare": "before"}
    one, two = (await asks(client, city.auditor, "access", **query)).json()["rows"]
    assert (one["open_success_rate"], one["open_success_rate_before"]) == (0.5, 0.0)
    assert (two["open_success_rate"], two["open_success_rate_before"]) == (0.75, 1.0)
    answer = await asks(client, city.auditor, "access", **query, format="csv")
    lines = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"), newline="")))
    assert [line["开门成功率 (open_success_rate)"] for line in lines] == ["0.5", "0.75"]

    # The ranking and the source say of what, and by what.
    query = {"from": "2026-11-20", "to": "2026-11-21", "figure": "open_success_rate"}
    ranked = (await asks(client, city.auditor, "ranking", **query)).json()["rows"]
    assert {
        row["station"]: (row["value"], row["numerator"], row["denominator"]) for row in ranked
    } == {"CQ0001": (0.5, 2, 4), "CQ0002": (0.75, 3, 4)}
    answer = await asks(
        client, city.auditor, "access/source", **query, of_station="CQ0001", by="station"
    )
    source = answer.json()
    assert source["numerator"] == "executed + opened - with_contact"
    assert {counter["name"]: counter["sum"] for counter in source["counters"]} == {
        "executed": 3,
        "with_contact": 3,
        "opened": 2,
        "granted": 4,
    }
    assert (source["value"], len(source["rows"])) == (0.5, 4)
