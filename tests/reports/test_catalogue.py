"""Where a figure comes from: every one has a formula, and the page says what the code says."""

from pathlib import Path

import httpx
import pytest

from app.api.admin.reports import COLUMNS, Report
from app.reports.catalogue import FORMULAS, FORMULAS_OF, described, page
from tests.api.test_admin_reports import City
from tests.api.test_admin_reports import city as city

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "reports.md"


def test_every_figure_of_every_report_has_a_formula_and_no_formula_is_left_over() -> None:
    found = {one.report: [field.name for field in one.fields] for one in described()}
    assert found == {report.value: list(COLUMNS[report]) for report in Report}
    used = {name for names in found.values() for name in names}
    assert set(FORMULAS) == used
    assert all(name in found[report] for report, name in FORMULAS_OF)
    for one in described():
        for field in one.fields:
            assert len(field.formula) > 10, field.name
            assert not field.title.isascii()


def test_the_page_is_up_to_date() -> None:
    """If this fails: python -m app.reports.catalogue > docs/reports.md"""
    assert PAGE.read_text("utf-8") == page()


async def test_an_administrator_can_ask_what_there_is(
    client: httpx.AsyncClient, city: City
) -> None:
    answer = await client.get("/v1/admin/reports", headers=city.auditor.headers)
    assert answer.status_code == 200, answer.text
    visits = next(one for one in answer.json() if one["report"] == "visits")
    assert visits["by"][:4] == ["station", "unit", "operating_model", "all"]
    assert visits["buckets"] == ["hour", "day", "week", "month"]
    share = next(field for field in visits["fields"] if field["name"] == "offhours_share")
    assert share["formula"] == "out_of_hours_visits / visits; null without visits"
    assert (await client.get("/v1/admin/reports")).status_code == 401
