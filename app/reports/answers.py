"""A report that was asked for: its rows, at once or part by part, and how they are written.

Long ones are computed a part at a time, each in a short read, and written as they come: their
length costs time, and no memory. Whatever computes or writes many rows does so beside the loop.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from app.places.rules import CITY_ZONE
from app.reports import comparing, occupations, queries
from app.reports.asked import COLUMNS, Asked, Report
from app.reports.catalogue import is_share
from app.reports.comparing import Pair
from app.reports.export import csv_head, csv_text
from app.reports.frame import MOST_STREAMED, Frame, frame
from app.reports.occupations import ByMonth
from app.reports.progress import Progress, progress
from app.reports.queries import REPORTS, Columns
from app.reports.ranking import Ranked, ranking
from app.reports.rules import Completeness
from app.reports.scope import Scope
from app.reports.workbook import Workbook, check_length
from app.reports.written import rows_as_json

ReadTx = Callable[[], AbstractAsyncContextManager[AsyncSession]]

Note = Callable[[int], None]
"""Hears of every portion that is written, and how many rows it had."""


def unheard(_rows: int) -> None:
    """Nobody asks how far it is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A report, as far as it is computed."""

    asked: Asked
    names: Sequence[str]
    """Of its columns."""
    known: Completeness
    counted: Progress
    calendar_known: bool | None
    """Whether it is known of all days if they are holidays or days at work to make up for one;
    None where rows are neither cut by such days nor compared on them."""
    nowhere: dict[str, int] | None
    """Of `access` for the whole city: refusals that name no station, by reason."""
    at: datetime
    made: Frame | Pair | ByMonth | None
    """Where the rows are yet to be computed, perhaps beside those of the period before."""
    columns: Columns = ()
    """Else the rows, by columns."""

    @property
    def portions(self) -> int:
        """In how many portions it comes."""
        return 1 if self.made is None else len(self.made.parts())

    @property
    def least(self) -> int:
        """So many rows it has at least; for each kind of thing, a report has as many again."""
        return _length(self.columns) if self.made is None else self.made.rows

    @property
    def facts(self) -> dict[str, Any]:
        """What is to be known of its rows: how complete they are, as of when, what is in none."""
        found = {
            "completeness": asdict(self.known),
            "rolled_up_to": self.counted.rolled_up_to,
            "recounting": self.counted.recounting,
            "calendar_known": self.calendar_known,
            "generated_at": self.at,
        }
        if self.nowhere is not None:
            found["refused_without_station"] = self.nowhere
        return found

    async def portioned(self, read: ReadTx) -> AsyncIterator[Columns]:
        """Give its rows by columns, portion by portion."""
        if self.made is None:
            yield self.columns
            return
        async for columns in _streamed(read, self.made, self.asked.report):
            yield columns


def _streamed(read: ReadTx, made: Frame | Pair | ByMonth, report: Report) -> AsyncIterator[Columns]:
    match made:
        case Pair():
            return comparing.streamed(read, made)
        case ByMonth():
            return occupations.streamed(read, made)
        case Frame():
            return queries.streamed(read, made, REPORTS[report])


async def answer(
    tx: AsyncSession,
    asked: Asked,
    scope: Scope,
    *,
    silence: timedelta,
    streams: bool,
    is_whole_city: bool,
) -> Answer:
    """Answer what was asked; with `streams`, as little as possible of it now.

    Raises PeriodInvalid.
    """
    names: Sequence[str] = COLUMNS[asked.report]
    made: Frame | Pair | ByMonth | None = None
    columns: Columns = ()
    if asked.compare is not None:
        names = [*names, *comparing.columns_of(asked.report)]
        made = await comparing.pair(tx, scope, asked.report, is_at_once=not streams)
    elif asked.report in REPORTS and streams:
        made = await frame(tx, scope, most=MOST_STREAMED)
    elif asked.report in REPORTS:
        columns = await queries.columns(tx, scope, REPORTS[asked.report])
    elif asked.report is Report.OCCUPATIONS and streams:
        made = await occupations.rows_of(tx, scope, is_at_once=False)
    elif asked.report is Report.OCCUPATIONS:
        rows = await occupations.rows_of(tx, scope, is_at_once=True)
        columns = await occupations.columns(tx, rows)
    elif asked.report is Report.RANKING:
        columns = await ranking(tx, scope, asked.figure or Ranked.VISITS)
    else:
        boxes = await queries.controllers(tx, scope, silent_since=scope.at - silence)
        columns = list(zip(*boxes, strict=True))
    counted = await progress(tx)
    nowhere = None
    if asked.report is Report.ACCESS and is_whole_city:
        nowhere = await queries.refused_nowhere(tx, asked.period, CITY_ZONE)
    known = counted.completeness(asked.period.days, scope.at, CITY_ZONE)
    calendar_known = asked.calendar_known(scope.calendar)
    return Answer(asked, names, known, counted, calendar_known, nowhere, scope.at, made, columns)


async def as_csv(read: ReadTx, answer: Answer, note: Note = unheard) -> AsyncIterator[bytes]:
    """Write it as CSV, portion by portion: one table, with its facts to be told beside it."""
    yield csv_head(answer.names).encode()
    async for columns in answer.portioned(read):
        text = await asyncio.to_thread(csv_text, answer.names, zip(*columns, strict=True))
        yield text.encode()
        note(_length(columns))


async def as_json(
    read: ReadTx, answer: Answer, note: Note = unheard
) -> AsyncIterator[bytes | memoryview]:
    """Write it as JSON, portion by portion."""
    yield b'%b,"rows":[' % to_json(answer.asked.echo())[:-1]
    comma = b""
    async for columns in answer.portioned(read):
        rows = _length(columns)
        if rows:
            text = await asyncio.to_thread(rows_as_json, answer.names, columns)
            yield comma
            yield memoryview(text)[1:-1]
            comma = b","
        note(rows)
    yield b"]," + to_json(answer.facts)[1:]


async def as_workbook(read: ReadTx, answer: Answer, path: Path, note: Note = unheard) -> None:
    """Write it as a workbook, portion by portion; raises PeriodInvalid."""
    check_length(answer.least)
    shares = {name for name in answer.names if is_share(name, answer.asked.figure)}
    book = Workbook(path, answer.names, shares=shares, zone=ZoneInfo(CITY_ZONE))
    try:
        async for columns in answer.portioned(read):
            await asyncio.to_thread(book.add, columns)
            note(_length(columns))
        await asyncio.to_thread(book.finish, _about(answer))
    finally:
        await asyncio.to_thread(book.close)


def _length(columns: Columns) -> int:
    return len(columns[0]) if columns else 0


_ONLY = (("工会组织 unit", "unit"), ("驿站 station", "station"), ("指标 figure", "figure"))
"""What a report may be narrowed to, beside its period."""


def local(at: datetime | None) -> str:
    """Write an instant by the city's clock; None is a dash."""
    return "—" if at is None else at.astimezone(ZoneInfo(CITY_ZONE)).isoformat(timespec="seconds")


def about_asked(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say on a file what was asked, by its echo."""
    return [
        ("报表 report", said["report"]),
        ("起 from", said["from"]),
        ("止（不含）to", said["to"]),
        ("行 by", said["by"] + (f" / {said['bucket']}" if said["bucket"] else "")),
        *((title, said[name]) for title, name in _ONLY if said.get(name)),
    ]


EMPTY_CELL = ("空格 empty cell", "没有数据，不是零。No data, which is not zero.")

CALENDAR_UNKNOWN = (
    "日历未知 calendar_known",
    "节假日未导入，按星期算。Holidays unknown: weekdays.",
)


def _about(answer: Answer) -> list[tuple[str, str]]:
    """Say on the file itself what it is, of when, and how complete."""
    known, said = answer.known, answer.asked.echo()
    return [
        *about_asked(said),
        ("生成时间 generated_at", local(answer.at)),
        *(
            [("对比期 before", f"{said['before_from']} – {said['before_to']}")]
            if "before_from" in said
            else []
        ),
        ("完整度 completeness", f"{known.days_counted}/{known.days_asked} 天已统计 days counted"),
        ("统计到 rolled_up_to", local(answer.counted.rolled_up_to)),
        *(
            [("正在重新统计 recounting", "部分日子正在重新统计。Some days are being counted anew.")]
            if answer.counted.recounting
            else []
        ),
        *([CALENDAR_UNKNOWN] if answer.calendar_known is False else []),
        *(
            (f"无驿站的拒绝 refused_without_station.{reason}", f"{count:,}")
            for reason, count in (answer.nowhere or {}).items()
        ),
        EMPTY_CELL,
    ]
