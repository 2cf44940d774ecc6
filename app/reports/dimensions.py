"""What a row of a report is about, and what is set beside a figure that is compared, in words.

Each is said in English and in Chinese: both of the same, and never of one language alone.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.reports.rules import Bucket, By


class Said(NamedTuple):
    """The same in two languages."""

    english: str
    chinese: str


DIMENSIONS: Mapping[str, Said] = {
    By.STATION: Said("one station", "一个驿站"),
    By.UNIT: Said("the stations that hang on one unit directly", "直属一个工会组织的驿站"),
    By.BRANCH: Said(
        "a unit directly below the place that is asked about, with everything below it",
        "所查范围的一个直接下级组织，含其以下全部驿站",
    ),
    By.OPERATING_MODEL: Said(
        "stations that are kept going by the same kind of keeper", "运营模式相同的驿站"
    ),
    By.ALL: Said("all stations that are asked about", "所查范围的全部驿站"),
    By.HOUR: Said(
        "one of the 24 hours of the day; as a bucket, every hour of every day",
        "一天 24 小时中的一个小时；再拆分时为每天的每个小时",
    ),
    By.DAY: Said("a local day", "当地的一天"),
    By.WEEKDAY: Said("a day of the week, of all weeks together", "星期中的一天，各周合计"),
    By.DAY_CLASS: Said(
        "workdays, weekends, public holidays, or days at work to make up for these",
        "工作日、周末、法定节假日或调休工作日",
    ),
    By.WEEK: Said("a week from Monday on", "从星期一开始的一周"),
    By.MONTH: Said("a calendar month", "一个自然月"),
    Bucket.HOUR_OF_DAY: Said(
        "one of the 24 hours of the day, of all days together",
        "一天 24 小时中的一个小时，各天合计",
    ),
}
"""What a row is of, or a piece of it."""

ENDINGS: Mapping[str, Said] = {
    "_over": Said(
        "what came on the days that are over; of a share or a mean, that of the sums, before "
        "these are rounded, of days of which all its parts are known",
        "已结束的日子的数；比率和平均值由各分项之和（取整之前）相除，只含各分项都可知的日子",
    ),
    "_before": Said(
        "what the period before comes to with the workdays, weekends and holidays among these "
        "days: of each class as much for a known day as came then; null where these days are of "
        "a class that the period before had none of, or of which nothing is known. The parts of "
        "a share stand beside it with the same endings, each of all days of which it is known "
        "itself",
        "前期折算成本期的工作日、周末和节假日天数：取前期每类日子的日均，乘以本期同类已知日子的"
        "天数；本期有而前期没有、或前期该类日子都不可知时为空。比率的分子和分母各自这样折算再相除，"
        "并以同样的后缀列在旁边，各含自己可知的日子",
    ),
    "_change": Said(
        "`_over` / `_before` - 1; of a share too, so a part of itself and no points: from 80 % "
        "to 84 % is 0.05",
        "`_over` / `_before` - 1；比率也一样，是变化占前期数值的几分之几，不是百分点："
        "从 80 % 到 84 % 是 0.05",
    ),
}
"""What is set beside a figure that is compared."""

CUTS_OF: Mapping[str, tuple[Sequence[By], Sequence[Bucket]]] = {
    "occupations": ([By.STATION, By.UNIT, By.BRANCH, By.ALL, By.MONTH], [Bucket.MONTH]),
    "ranking": ([By.STATION], []),
    "controllers": ([By.STATION], []),
}
"""Reports that are not cut in every way."""


def cuts_of(report: str) -> tuple[Sequence[By], Sequence[Bucket]]:
    """Say by what a report has rows, and by what these are cut."""
    return CUTS_OF.get(report, (list(By), list(Bucket)))
