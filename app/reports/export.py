"""Rows as CSV: with a mark so that Excel reads UTF-8, and no cell that it would run.

The first row names each column in Chinese with its field name behind, such as `人次 (visits)`: a
person reads the first, a program the second. Counts by reason become one column per reason.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

from defusedcsv import csv

from app.doors.rules import Reason
from app.places.rules import CITY_ZONE

BOM = "\ufeff"
_ZONE = ZoneInfo(CITY_ZONE)

TITLES: Mapping[str, str] = {
    "station": "驿站编号",
    "unit": "工会组织",
    "name": "名称",
    "is_own": "仅本级直属",
    "operating_model": "运营模式",
    "day": "日期",
    "hour": "小时",
    "weekday": "星期",
    "day_class": "日期类别",
    "known_share": "可知时间占比",
    "reported_share": "控制器有数据时间占比",
    "visits": "人次",
    "visits_free": "值守时段人次",
    "visits_scan": "扫码时段人次",
    "visits_offline": "离线开门人次",
    "persons": "总人数（含同行）",
    "returns": "十分钟内返回",
    "unique_workers": "服务人数（去重）",
    "anonymous_visits": "匿名人次",
    "beyond_retention": "超出保留期",
    "out_of_hours_visits": "无人值守时段人次",
    "offhours_share": "无人值守时段占比",
    "staffed_hours": "值守时长（小时）",
    "unstaffed_hours": "无人值守开放时长（小时）",
    "covered_hours": "有记录的值守时长（小时）",
    "heads_only_hours": "其中只有点数的时长（小时）",
    "free_mode_coverage": "值守时段记录覆盖率",
    "night_uplift": "无人值守提升比",
    "walk_in_heads": "点数人数",
    "head_counts": "点数次数",
    "refused": "拒绝次数",
    "unmet_demand": "未满足需求",
    "stays": "观测到离开的停留次数",
    "stay_hours": "停留总时长（小时）",
    "dwell_mean_s": "平均停留（秒）",
    "dwell_median_s": "停留中位数（秒）",
    "dwell_p90_s": "停留 P90（秒）",
    "ended": "已结束停留次数",
    "imputed_exits": "推定离开次数",
    "imputed_exit_share": "推定离开占比",
    "decided": "扫码次数",
    "granted": "同意开门",
    "walk_in": "直接进入",
    "by_reason": "拒绝原因",
    "grant_rate": "放行率",
    "claimed": "控制器已取令",
    "executed": "已吸合开门",
    "open_success_rate": "开门成功率",
    "refused_after_grant": "同意后被拒",
    "with_contact": "有门磁的开门",
    "opened": "门磁证实开门",
    "proven_open_rate": "门磁证实率",
    "decide_p50_ms": "决定 P50（毫秒）",
    "decide_p95_ms": "决定 P95（毫秒）",
    "decide_p99_ms": "决定 P99（毫秒）",
    "decide_timed": "决定计时数",
    "pickup_p50_ms": "取令 P50（毫秒）",
    "pickup_p95_ms": "取令 P95（毫秒）",
    "pickup_p99_ms": "取令 P99（毫秒）",
    "pickup_timed": "取令计时数",
    "pulse_p50_ms": "吸合 P50（毫秒）",
    "pulse_p95_ms": "吸合 P95（毫秒）",
    "pulse_p99_ms": "吸合 P99（毫秒）",
    "pulse_timed": "吸合计时数",
    "door_p50_ms": "开门 P50（毫秒）",
    "door_p95_ms": "开门 P95（毫秒）",
    "door_p99_ms": "开门 P99（毫秒）",
    "door_timed": "开门计时数",
    "alone_opened": "离线放行",
    "alone_refused": "离线拒绝",
    "alone_flagged": "离线放行但应拒绝",
    "capacity": "座位数",
    "measured_hours": "统计时长（小时）",
    "station_hours": "驿站时长（小时）",
    "reporting_hours": "开放且有数据的时长（小时）",
    "seat_hours": "座位时长（小时）",
    "reporting_person_hours": "其间在站人时（小时）",
    "reporting_used_hours": "其间有人时长（小时）",
    "person_hours": "在站人时（小时）",
    "used_hours": "有人时长（小时）",
    "avg_occupancy": "平均在站人数",
    "avg_when_used": "有人时平均在站人数",
    "peak_occupancy": "峰值（15 分钟平均）",
    "peak_at": "峰值时间",
    "max_observed": "最多同时在站人数",
    "seat_utilization": "座位利用率",
    "time_utilization": "时间利用率",
    "crowded_minutes": "拥挤时长（分钟）",
    "kind": "设施种类",
    "units": "现有数量",
    "uses": "使用次数",
    "open_uses": "使用中",
    "quantity": "用量",
    "in_use_hours": "使用时长（小时）",
    "uses_per_visit": "每人次使用次数",
    "standing_hours": "设施时长（小时）",
    "out_of_order_hours": "故障时长（小时）",
    "degraded_hours": "带病运行时长（小时）",
    "unknown_hours": "状态未知时长（小时）",
    "availability": "可用率",
    "unknown_share": "未知占比",
    "repairs": "修复次数",
    "repair_hours": "修复总时长（小时）",
    "repair_mean_min": "平均修复（分钟）",
    "repair_median_min": "修复中位数（分钟）",
    "open_faults_over_72h": "超过 72 小时的故障",
    "promised_hours": "承诺开放时长（小时）",
    "usable_hours": "可用时长（小时）",
    "promise_rate": "兑现率",
    "commissioned_hours": "控制器投用时长（小时）",
    "online_hours": "控制器在线时长（小时）",
    "unheard_hours": "无服务器在听时长（小时）",
    "controller_uptime": "控制器在线率",
    "outages": "中断次数",
    "outage_hours": "中断总时长（小时）",
    "mttr_min": "平均恢复（分钟）",
    "occupation": "职业",
    "all_visits": "全部人次",
    "visits_share": "占全部人次",
    "told_visits": "已填职业人次",
    "occupation_share": "占已填职业人次",
    "suppressed": "人数过少不显示",
    "k": "最少人数 k",
    "peer_group": "同类组",
    "figure": "指标",
    "value": "数值",
    "visits_per_seat": "每座位人次",
    "numerator": "分子",
    "denominator": "分母",
    "peers": "同类驿站数",
    "percentile": "同类百分位",
    "rank": "同类名次",
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

OF_DAYS: Mapping[str, str] = {
    "compared_days": "已比较天数",
    "days_over": "已结束天数",
    "left_out_classes": "未比较的日期类别",
}
"""Columns that say which days are compared."""
COMPARED: Mapping[str, str] = {
    "_over": "（可比的日子）",
    "_before": "（前期，按本期日期构成）",
    "_change": "变化率",
}
"""Endings of the columns that compare, and what they are called."""
OF_BEFORE = "before_"
"""What names of columns begin with that tell of the period before how complete it is."""

_REFUSALS = tuple(reason for reason in Reason if reason is not Reason.OK)


def csv_head(columns: Sequence[str]) -> str:
    """Write the header of a report."""
    return csv_titled([title for column in columns for title in spread_titles(column)])


def csv_titled(titles: Sequence[str]) -> str:
    """Write a header, with the mark by which Excel reads UTF-8."""
    text = io.StringIO(newline="")
    text.write(BOM)
    csv.writer(text).writerow(titles)
    return text.getvalue()


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write some rows; None is an empty cell, and zero is 0 (law 16)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    for row in rows:
        cells = zip(columns, row, strict=True)
        writer.writerow([cell for column, value in cells for cell in _cells(column, value)])
    return text.getvalue()


def title_of(column: str) -> str:
    """Give what a column is called; compared figures have their own beside them."""
    if column in OF_DAYS:
        return OF_DAYS[column]
    if column.startswith(OF_BEFORE):
        return f"前期{TITLES[column.removeprefix(OF_BEFORE)]}"
    for ending, more in COMPARED.items():
        if column.endswith(ending):
            return f"{TITLES[column.removesuffix(ending)]}{more}"
    return TITLES[column]


def spread_titles(column: str) -> Sequence[str]:
    """Give the titles of a field's columns; counts by reason have one per reason."""
    title = title_of(column)
    if column == "by_reason":
        return [f"{title} ({column}.{reason.value})" for reason in _REFUSALS]
    return [f"{title} ({column})"]


def spread_values(column: str, value: Any) -> Sequence[Any]:
    """Give the values of a field's columns, as they are; several words in one cell."""
    if isinstance(value, list):
        return [" ".join(value)]
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
            # On the clock by which days and hours are told beside it, and with what that is of UTC.
            return value.astimezone(_ZONE).isoformat()
        case Enum():
            return value.value
        case _:
            return value
