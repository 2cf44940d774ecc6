"""Rows as CSV: with a mark so that Excel reads UTF-8, and no cell that it would run.

The first row names each column in Chinese with its field name behind, such as `人次 (visits)`: a
person reads the first, a program the second. Counts by reason become one column per reason.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

from defusedcsv import csv

from app.doors.rules import Reason

BOM = "\ufeff"

TITLES: Mapping[str, str] = {
    "station": "驿站编号",
    "unit": "工会组织",
    "name": "名称",
    "day": "日期",
    "hour": "小时",
    "known_share": "可知时间占比",
    "visits": "人次",
    "persons": "总人数（含同行）",
    "unique_workers": "服务人数（去重）",
    "anonymous_visits": "匿名人次",
    "beyond_retention": "超出保留期",
    "out_of_hours_visits": "无人值守时段人次",
    "offhours_share": "无人值守时段占比",
    "walk_in_heads": "值守时段点数人数",
    "refused": "拒绝次数",
    "unmet_demand": "未满足需求",
    "dwell_mean_s": "平均停留（秒）",
    "dwell_median_s": "停留中位数（秒）",
    "dwell_p90_s": "停留 P90（秒）",
    "imputed_exit_share": "推定离开占比",
    "decided": "扫码次数",
    "granted": "同意开门",
    "walk_in": "直接进入",
    "by_reason": "拒绝原因",
    "grant_rate": "放行率",
    "executed": "门已打开",
    "open_success_rate": "开门成功率",
    "pickup_p50_ms": "取令 P50（毫秒）",
    "pickup_p95_ms": "取令 P95（毫秒）",
    "pickup_p99_ms": "取令 P99（毫秒）",
    "capacity": "座位数",
    "measured_hours": "统计时长（小时）",
    "avg_occupancy": "平均在站人数",
    "avg_when_used": "有人时平均在站人数",
    "peak_occupancy": "峰值（15 分钟平均）",
    "peak_at": "峰值时间",
    "max_observed": "最多同时在站人数",
    "seat_utilization": "座位利用率",
    "time_utilization": "时间利用率",
    "kind": "设施种类",
    "units": "现有数量",
    "uses": "使用次数",
    "open_uses": "使用中",
    "quantity": "用量",
    "in_use_hours": "使用时长（小时）",
    "uses_per_visit": "每人次使用次数",
    "serial": "控制器序列号",
    "firmware": "固件版本",
    "seen_at": "最近联系时间",
    "online": "在线",
    "commands": "开门指令",
    "live": "进行中",
    "failed": "失败",
    "expired": "已过期",
    "unknown": "结果未知",
}
"""What each column is called in Chinese; every field of every report has a title."""

_REFUSALS = tuple(reason for reason in Reason if reason is not Reason.OK)


def csv_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Write a header and the rows; None is an empty cell, and zero is 0 (law 16)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    text.write(BOM)
    writer.writerow([title for column in columns for title in spread_titles(column)])
    yield _taken(text)
    for row in rows:
        cells = zip(columns, row, strict=True)
        writer.writerow([cell for column, value in cells for cell in _cells(column, value)])
        yield _taken(text)


def _taken(text: io.StringIO) -> str:
    line = text.getvalue()
    text.seek(0)
    text.truncate()
    return line


def spread_titles(column: str) -> Sequence[str]:
    """Give the titles of a field's columns; counts by reason have one per reason."""
    title = TITLES[column]
    if column == "by_reason":
        return [f"{title} ({column}.{reason.value})" for reason in _REFUSALS]
    return [f"{title} ({column})"]


def spread_values(column: str, value: Any) -> Sequence[Any]:
    """Give the values of a field's columns, as they are."""
    if column != "by_reason":
        return [value]
    if value is None:
        return [None] * len(_REFUSALS)
    return [value.get(reason.value, 0) for reason in _REFUSALS]


def _cells(column: str, value: Any) -> Sequence[Any]:
    return [_cell(each) for each in spread_values(column, value)]


def _cell(value: Any) -> Any:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.isoformat()
        case Enum():
            return value.value
        case _:
            return value
