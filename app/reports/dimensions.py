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
        "what came on the days that can be compared: that are over, and of a class (workday, "
        "weekend, public_holiday) of which the figure is known in both periods; of a share or a "
        "mean, that of the sums, before these are rounded, of days of which all its parts are "
        "known; null where no class is shared",
        "可比的日子的数：已结束、且所属类别（工作日、周末、法定节假日）在两期里都可知；比率和平均值由"
        "各分项之和（取整之前）相除，只含各分项都可知的日子；没有两期共有的类别时为空",
    ),
    "_before": Said(
        "what the period before comes to with the workdays, weekends and holidays among these "
        "days: of each class as much for a known day as came then; null where no class is shared. "
        "The parts of a share stand beside it with the same endings, each of all days of which it "
        "can be compared itself",
        "前期折算成这些日子里的工作日、周末和节假日天数：取前期每类日子的日均，乘以本期同类已知日子的"
        "天数；没有两期共有的类别时为空。比率的分子和分母各自这样折算再相除，"
        "并以同样的后缀列在旁边，各含自己可比的日子",
    ),
    "_change": Said(
        "`_over` / `_before` - 1; of a share too, so a part of itself and no points: from 80 % "
        "to 84 % is 0.05",
        "`_over` / `_before` - 1；比率也一样，是变化占前期数值的几分之几，不是百分点："
        "从 80 % 到 84 % 是 0.05",
    ),
}
"""What is set beside a figure that is compared."""

BESIDE: Mapping[str, Said] = {
    "compared_days": Said(
        "so many of the days that are over are compared: of classes of which something is known "
        "of the row in both periods; a figure that is known of fewer of them is of those alone",
        "已结束的日子里有这么多天可比：所属类别在两期里这一行都有数据；某个数字可知的日子更少时，"
        "只含它自己可知的",
    ),
    "days_over": Said(
        "days of the period that are over, as in `completeness`",
        "本期已结束的天数，与 `completeness` 相同",
    ),
    "left_out_classes": Said(
        "classes of days that are over and not compared, as one of the periods has none of them "
        "or nothing is known of them: New Year's Day beside a month without a holiday is "
        "`public_holiday`",
        "已结束而不比较的日期类别：其中一期没有这类日子，或没有数据；例如元旦与没有节假日的上月相比，"
        "是法定节假日（public_holiday）",
    ),
    "before_known_share": Said(
        "of the period before, what `known_share` is of this one", "前期的可知时间占比"
    ),
    "before_reported_share": Said(
        "of the period before, what `reported_share` is of this one: a station that was not heard "
        "then has few visits then, and a change that is none",
        "前期的控制器有数据时间占比：前期没有信号的驿站，前期人次少，变化并不真实",
    ),
}
"""What is told of a row that is compared, whatever its figures."""

CUTS_OF: Mapping[str, tuple[Sequence[By], Sequence[Bucket]]] = {
    "occupations": ([By.STATION, By.UNIT, By.BRANCH, By.ALL, By.MONTH], [Bucket.MONTH]),
    "ranking": ([By.STATION], []),
    "controllers": ([By.STATION], []),
}
"""Reports that are not cut in every way."""


def cuts_of(report: str) -> tuple[Sequence[By], Sequence[Bucket]]:
    """Say by what a report has rows, and by what these are cut."""
    return CUTS_OF.get(report, (list(By), list(Bucket)))
