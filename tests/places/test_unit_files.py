"""Units come in by a file: below each other, once, all or none."""

import pytest
import sqlalchemy as sa

from app.audit import COMMAND_LINE, Action, AuditEntry
from app.places import unit_files
from app.places.tables import UnitKind
from app.places.transfer import ImportRefused
from app.places.unit_files import ImportedUnits
from app.places.units import by_full_name
from app.runtime import Runtime

pytestmark = pytest.mark.anyio

CITY = """unit,kind
市总工会,city
市总工会/渝中区总工会,district
市总工会/渝中区总工会/解放碑街道,street
市总工会/快递行业,industry
"""


async def brings_in(runtime: Runtime, text: str) -> ImportedUnits:
    async with runtime.database.write() as tx:
        return await unit_files.import_units(
            tx, text.encode(), actor=COMMAND_LINE, at=runtime.now()
        )


async def standing(runtime: Runtime) -> dict[str, UnitKind]:
    async with runtime.database.read() as tx:
        return {name: unit.kind for name, unit in (await by_full_name(tx)).items()}


async def test_units_are_made_below_each_other_and_only_once(runtime: Runtime) -> None:
    assert await brings_in(runtime, CITY) == ImportedUnits(4, 0, 0)
    made = await standing(runtime)
    assert made["市总工会/渝中区总工会/解放碑街道"] is UnitKind.STREET
    assert len(made) == 4
    changed = CITY.replace("快递行业,industry", "快递行业,street")
    assert await brings_in(runtime, changed) == ImportedUnits(0, 1, 3)
    assert (await standing(runtime))["市总工会/快递行业"] is UnitKind.STREET
    async with runtime.database.read() as tx:
        acts = await tx.scalars(sa.select(AuditEntry.action))
        assert sorted(acts) == [Action.UNIT_ADDED] * 4 + [Action.UNIT_AMENDED]


@pytest.mark.parametrize(
    ("text", "rows", "message"),
    [
        ("unit;kind\n市总工会;city\n", [], "The first line must be: unit,kind"),
        ("unit,kind\n", [], "names no unit"),
        (CITY + "区总工会/街道,street\n", [6], "'区总工会' stands neither above nor"),
        (CITY + "市总工会/甲,town\n", [6], "is none of city, district"),
        (CITY + "市总工会/快递行业,street\n", [6], "stands in row 5 already"),
        (CITY + "市总工会/\n,city\n", [6, 7], "a row has 2 fields"),
        (CITY + "市总工会/甲\ue000\x07,street\n", [6], "one line of 1 to 200 characters"),
    ],
)
async def test_a_bad_row_is_named_and_nothing_comes_in(
    runtime: Runtime, text: str, rows: list[int], message: str
) -> None:
    with pytest.raises(ImportRefused, match=message) as refused:
        await brings_in(runtime, text)
    told = refused.value.extensions.get("errors", [])
    assert [error["loc"] for error in told] == [["row", number] for number in rows]
    assert await standing(runtime) == {}
