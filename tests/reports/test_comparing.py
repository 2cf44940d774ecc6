"""Rows beside those of the period before: whole histories, told by the reports themselves."""

from datetime import timedelta
from typing import Any

import pytest

from app.reports import comparing, queries
from app.reports.comparing import FIGURES
from app.reports.queries import REPORTS
from app.reports.rules import By, Period
from app.reports.rules.comparison import change, period_before
from app.reports.rules.rates import rate_of
from app.runtime import Runtime
from tests.reports.test_queries import START, Health, told
from tests.reports.test_queries import health as health

pytestmark = pytest.mark.anyio

WEEKS = Period(START - timedelta(weeks=2), START)
"""Two weeks that are over, without a holiday, as the two before them; no clock was moved then."""


async def test_of_as_many_days_of_each_class_the_period_before_is_what_its_report_says(
    runtime: Runtime, health: Health
) -> None:
    seen = 0
    async with told(runtime, 1, health, rounds=0) as one:
        for report in FIGURES:
            for by in (By.STATION, By.UNIT, By.ALL):
                scope = one.scope(by, None, WEEKS)
                before = one.scope(by, None, period_before(WEEKS))
                rows: Any = await queries.rows(one.tx, scope, REPORTS[report])
                then: Any = await queries.rows(one.tx, before, REPORTS[report])
                of_before = {comparing.key_of(row): row for row in then}
                beside = await comparing.compared(one.tx, scope, report, rows)
                for row, values in zip(rows, beside.rows, strict=True):
                    found = dict(zip(beside.columns, values, strict=True))
                    was = of_before.get(comparing.key_of(row))
                    for name in FIGURES[report]:
                        over, old = found[f"{name}_over"], found[f"{name}_before"]
                        assert found[f"{name}_change"] == change(over, old)
                        wanted = getattr(row, name)
                        # Of a station that was not there all the time, this history has more.
                        if wanted is not None and row.known_share == 1:
                            assert over == pytest.approx(wanted, abs=1e-9), (report, name)
                        rate = rate_of(report, name)
                        parts = (name,) if rate is None else rate.names
                        is_known = None not in [getattr(row, part) for part in parts]
                        if was is None or not is_known or min(row.known_share, was.known_share) < 1:
                            continue
                        wanted = getattr(was, name)
                        if wanted is not None and old is not None:
                            near = 0.006 if rate is None else 1e-9
                            assert old == pytest.approx(wanted, abs=near), (report, name)
                            seen += rate is not None and old > 0
    assert seen > 50
