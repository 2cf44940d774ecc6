"""Where a figure comes from: every one has a formula, and the page says what the code says."""

import re
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest

from app.reports import chinese
from app.reports.asked import COLUMNS, Report
from app.reports.catalogue import FORMULAS, FORMULAS_OF, described, field_of
from app.reports.export import TITLES
from app.reports.printed import page
from app.reports.ranking import Ranked
from app.reports.rules import Bucket
from tests.api.test_admin_reports import City
from tests.api.test_admin_reports import city as city

pytestmark = pytest.mark.anyio

MEANS = {"dwell_mean_s", "repair_mean_min", "mttr_min", "avg_occupancy", "avg_when_used"}
NO_FIELDS = {"known_share", "reported_share", "percentile"}
"""Shares of time and of peers, which are no fields of the row."""
PAGE = Path(__file__).parents[2] / "docs" / "reports.md"


def test_every_figure_of_every_report_has_a_formula_and_no_formula_is_left_over() -> None:
    found = {one.report: [field.name for field in one.fields] for one in described()}
    assert found == {report.value: list(COLUMNS[report]) for report in Report}
    used = {name for names in found.values() for name in names}.union(Ranked)
    assert set(FORMULAS) == used
    assert all(name in found[report] for report, name in FORMULAS_OF)
    for one in described():
        for field in one.fields:
            assert len(field.formula) > 10, field.name
            assert not field.title.isascii()


def test_every_rate_names_the_fields_it_was_divided_of_and_by() -> None:
    for one in described():
        names = {field.name for field in one.fields}
        for field in one.fields:
            said = (field.numerator, field.denominator)
            is_rate = field.unit in ("share", "ratio") or field.name in MEANS
            assert (None not in said) is (is_rate and field.name not in NO_FIELDS), field.name
            is_percentile = re.search("_(median|p[0-9]+)_", field.name) is not None
            assert (said[1] is not None) is (None not in said or is_percentile), field.name
            for side in said:
                assert set(re.findall("[a-z_]+", side or "")) <= names
        assert one.privacy


def test_what_stations_are_ranked_by_is_said_as_its_own_report_says_it() -> None:
    fields = {one.report: {field.name: field for field in one.fields} for one in described()}
    (ranking,) = [one for one in described() if one.report == "ranking"]
    assert [one.name for one in ranking.ranked] == list(ranking.figures) == list(Ranked)
    for one in ranking.ranked:
        ranked, home = Ranked(one.name), fields[one.report]
        if ranked is not Ranked.VISITS_PER_SEAT:
            assert asdict(one).items() >= asdict(home[one.name]).items()
        for side in (one.numerator, one.denominator):
            assert set(re.findall("[a-z_]+", side or "")) <= {*home, "capacity"}
        value = field_of("ranking", "value", ranked)
        assert asdict(value) | {"name": one.name, "title": one.title} == {
            name: said for name, said in asdict(one).items() if name in asdict(value)
        }
        assert field_of("ranking", "rank", ranked) == fields["ranking"]["rank"]
    assert {one.name for one in ranking.ranked if not one.must_be_heard} == {
        "unmet_demand",
        "grant_rate",
        "open_success_rate",
        "promise_rate",
        "controller_uptime",
    }


def test_the_sides_of_what_is_ranked_are_said_by_the_fields_that_they_are() -> None:
    def side(name: str, ranked: Ranked) -> tuple[str, str, str | None, str | None]:
        said = field_of("ranking", name, ranked)
        assert (said.name, said.title) == (name, TITLES[name])
        return said.formula, said.unit, said.numerator, said.denominator

    formula, *rest = side("numerator", Ranked.PROMISE_RATE)
    assert formula == f"usable_hours: {FORMULAS['usable_hours'][0]}"
    assert rest == ["hours", None, None]
    formula, *rest = side("denominator", Ranked.PROMISE_RATE)
    assert formula.startswith("promised_hours - unknown_hours; promised_hours: time in which")
    # By its name in that report, not in the one of facilities.
    assert formula.endswith(FORMULAS_OF["promise", "unknown_hours"])
    assert rest == ["hours", None, None]
    formula, *rest = side("numerator", Ranked.NIGHT_UPLIFT)
    assert formula.startswith("out_of_hours_visits / unstaffed_hours; out_of_hours_visits: ")
    assert rest == ["ratio", "out_of_hours_visits", "unstaffed_hours"]
    # A count is divided of itself, and by nothing.
    assert side("numerator", Ranked.VISITS)[0] == FORMULAS["visits"][0]
    assert side("denominator", Ranked.VISITS)[0] == FORMULAS["denominator"][0]


def test_the_page_is_up_to_date() -> None:
    """If this fails: python -m app.reports.printed > docs/reports.md"""
    assert PAGE.read_text("utf-8") == page()


def test_chinese_says_all_that_english_says_of_the_same_fields() -> None:
    assert set(chinese.FORMULAS) == set(FORMULAS)
    assert set(chinese.FORMULAS_OF) == set(FORMULAS_OF)
    assert set(chinese.REPORTS) == set(Report)
    for one in described():
        assert set(one.dimensions_zh) == set(one.dimensions)
        assert set(one.endings_zh) == set(one.endings)
        chinese_texts = (one.title, one.says_zh, one.privacy_zh)
        for text in (*chinese_texts, *one.dimensions_zh.values(), *one.endings_zh.values()):
            assert not text.isascii()
        names = {field.name for field in one.fields}
        for field in one.fields:
            assert len(field.formula_zh) > 3, field.name
            if field.numerator is not None and "histogram" not in field.formula:
                said = set(re.findall("[a-z_]{3,}", field.formula.split(";")[0])) & names
                also = set(re.findall("[a-z_]{3,}", field.formula_zh))
                assert said <= also, (field.name, said - also)


async def test_an_administrator_can_ask_what_there_is(
    client: httpx.AsyncClient, city: City
) -> None:
    answer = await client.get("/v1/admin/reports", headers=city.auditor.headers)
    assert answer.status_code == 200, answer.text
    visits = next(one for one in answer.json() if one["report"] == "visits")
    assert visits["by"][:5] == ["station", "unit", "branch", "operating_model", "all"]
    assert visits["buckets"] == [each.value for each in Bucket]
    assert set(visits["dimensions"]) == {*visits["by"], *visits["buckets"]}
    assert visits["dimensions_zh"]["station"] == "一个驿站"
    assert visits["endings_zh"]["_change"].startswith("`_over` / `_before` - 1；")
    share = next(field for field in visits["fields"] if field["name"] == "offhours_share")
    assert share["formula"] == "out_of_hours_visits / visits; null without visits"
    assert (share["numerator"], share["denominator"]) == ("out_of_hours_visits", "visits")
    occupations = next(one for one in answer.json() if one["report"] == "occupations")
    assert (occupations["by"], occupations["buckets"]) == (
        ["station", "unit", "branch", "all", "month"],
        ["month"],
    )
    assert "fewer than 5 distinct workers" in occupations["privacy"]
    assert (await client.get("/v1/admin/reports")).status_code == 401
