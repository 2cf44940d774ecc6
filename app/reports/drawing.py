"""The monthly sheet drawn: one A4 page of vectors, with its Chinese text as text.

Charts are Vega-Lite specifications; `vl-convert` draws them without a browser and without a
network. It carries a JavaScript engine of a hundred megabytes, so the service draws in a process of
its own, which reads figures and writes a PDF: `python -m app.reports.drawing < sheet.json`.
"""

import asyncio
import itertools
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

from app.reports.export import TITLES
from app.reports.rules.rates import COVERAGE
from app.reports.sheet import Sheet

WIDTH, HEIGHT, MARGIN = 595, 842, 40
FOOT, FOOT_LINE = 730, 9
"""Where the foot begins, and how far its lines lie apart: nine of them end a centimetre above the
paper's edge, for printers leave some of it white."""
"""A4 in points."""

INK, SOFT, LINE, RED, GREEN = "#14181c", "#55606b", "#cfd6dd", "#c3161c", "#0b7a3b"
PALE = "#a8c7b5"
"""Beside red it is told apart by its lightness too, in print and by any eye."""

DRAWS_WITHIN_S = 60.0
"""A sheet takes about a second."""

HEADS: Mapping[str, str] = {
    "peak_occupancy": "峰值在站人数",
    "dwell_median_s": "停留中位数",
    "unknown_share": "承诺时间中未知",
}
"""What figures are called at the head, where the report's title says less or more."""

PARTS: Mapping[str, str] = {
    "visits": "共 {of} 人（含同行）",
    "unique_workers": "另有匿名 {of} 人次",
    "offhours_share": "{of} / {by} 人次",
    "unmet_demand": "共拒绝 {of} 次",
    "grant_rate": "{of} / {by} 次扫码",
    "open_success_rate": "{of} / {by} 次同意开门",
    "peak_occupancy": "最多同时 {of} 人 / {by} 座",
    "dwell_median_s": "看到离开 {of} / {by} 次",
    "promise_rate": "{of} / {by} 小时",
    "unknown_share": "{of} / {by} 小时",
    "controller_uptime": "{of} / {by} 小时",
    "known_share": "{of} / {by} 小时",
    "reported_share": "{of} / {by} 小时",
    "hours": "{of} 人次 / {by} 天",
    "inside": "{of} 人时 / {by} 小时",
    "scanned": "{of} / {by} 小时",
}
"""What a figure was divided of and by, or what else is to be known of it."""

REASONS: Mapping[str, str] = {
    "token_invalid": "不是门码",
    "token_expired": "码已过期",
    "token_revoked": "码已作废",
    "wrong_kind": "码不对门",
    "worker_blocked": "账号停用",
    "station_closed": "不在开放时间",
    "staff_only": "仅限工作人员",
    "lockdown": "紧急封闭",
    "evacuation": "紧急疏散",
    "station_full": "已满员",
    "controller_offline": "设备离线",
    "door_retired": "门已停用",
    "rate_limited": "扫码太频繁",
    "impossible_travel": "行程异常",
    "display_required": "须扫屏幕码",
    "presence_required": "须在门前",
}
"""Every reason of a refusal, in few words."""

FACILITIES: Mapping[str, str] = {
    "water": "饮水",
    "microwave": "微波炉",
    "charger": "充电",
    "battery_swap": "换电",
    "air_conditioner": "空调",
    "first_aid": "急救箱",
    "aed": "除颤仪",
    "books": "图书",
    "legal_aid": "法律援助",
    "toilet": "卫生间",
    "locker": "储物柜",
    "laundry": "洗衣",
    "haircut": "理发",
    "coffee": "咖啡",
    "meals": "用餐",
    "nursing_room": "母婴室",
    "rest": "休息座",
}


class SheetFailed(RuntimeError):
    """The sheet could not be drawn."""


async def printed(sheet: Sheet) -> bytes:
    """Draw a sheet in a process of its own; raises SheetFailed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app.reports.drawing",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DRAWS_WITHIN_S):
            pdf, said = await process.communicate(json.dumps(plain(sheet)).encode())
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0 or not pdf.startswith(b"%PDF"):
        raise SheetFailed(said.decode("utf-8", "replace")[-400:])
    return pdf


def plain(sheet: Sheet) -> dict[str, Any]:
    """Give a sheet's figures as JSON holds them."""
    instants = {"generated_at": sheet.generated_at, "rolled_up_to": sheet.rolled_up_to}
    said = {name: at and at.isoformat(timespec="minutes") for name, at in instants.items()}
    return asdict(sheet) | said


def draw(sheets: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Draw sheets' plain figures as one PDF page each; slow, and large in memory."""
    import vl_convert  # Here, so that only this process carries both.

    from app.doors.typeface import subset

    # A typeface stays known to the end of the process: each lot has one under a name of its own.
    family = f"Sheet-{next(_lots)}"
    pages = [page(sheet, family, vl_convert.vegalite_to_svg) for sheet in sheets]
    with tempfile.TemporaryDirectory() as folder:
        # Only the characters on the sheets, in their mainland forms.
        Path(folder, "sheet.ttf").write_bytes(subset("".join(pages), family=family))
        vl_convert.register_font_directory(folder)
        return [vl_convert.svg_to_pdf(each) for each in pages]


_lots = itertools.count(1)


def page(sheet: Mapping[str, Any], family: str, to_svg: Any) -> str:
    """Lay a sheet out as a page of SVG; `to_svg` draws a chart by its specification."""
    inner = WIDTH - 2 * MARGIN
    half = (inner - 25) // 2
    place = f"{sheet['code']} · {sheet['unit']} · {sheet['address']} · {sheet['capacity']} 座"
    parts = [
        # A Chinese character is as wide as it is high: a long name is written smaller.
        _text(MARGIN, 62, sheet["name"], min(22, 390 / len(sheet["name"]))),
        _text(WIDTH - MARGIN, 62, f"{sheet['year']} 年 {sheet['month']} 月", 16, end=True),
        _text(MARGIN, 82, place, min(9, inner / len(place)), color=SOFT),
        f'<path d="M{MARGIN} 92H{WIDTH - MARGIN}" stroke="{RED}" stroke-width="2"/>',
        *_heads(sheet, inner),
    ]
    right = MARGIN + half + 25
    visits, inside = (
        made_of(sheet["hours_parts"], "hours"),
        made_of(sheet["inside_parts"], "inside"),
    )
    reasons = [(REASONS[name], count) for name, count in sheet["reasons"]]
    uses = [(FACILITIES[name], count) for name, count in sheet["uses"]]
    charts = (
        (MARGIN, 298, "每日人次", "", daily(sheet["days"], inner, 84)),
        (
            MARGIN,
            446,
            "一天中的人次（日均）",
            visits,
            hourly(sheet["hours"], "人次", RED, half, 82),
        ),
        (
            right,
            446,
            "一天中的在站人数（平均）",
            inside,
            hourly(sheet["inside"], "人数", GREEN, half, 82),
        ),
        (MARGIN, 570, "未能开门的原因", "", ranked(reasons, half, RED)),
        (right, 570, "设施使用（次）", "", ranked(uses, half, GREEN)),
    )
    is_known = any(day["staffed"] is not None for day in sheet["days"])
    nothing = "本月没有。" if is_known else "没有数据。"
    for x, y, title, made, spec in charts:
        parts.append(_text(x, y, title, 11))
        parts.append(_text(x + 11 * len(title) + 6, y, made, 8, color=SOFT))
        if spec is None:
            parts.append(_text(x, y + 22, nothing, 9, color=SOFT))
        else:
            chart = to_svg(_in(spec, family))
            parts.append(chart.replace("<svg ", f'<svg x="{x}" y="{y + 6}" ', 1))
    parts += _foot(sheet)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="{family}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>' + "".join(parts) + "</svg>"
    )


def _heads(sheet: Mapping[str, Any], inner: int) -> list[str]:
    """Lay the figures out, four to a row, each beside the month before."""
    parts = []
    for number, figure in enumerate(sheet["figures"]):
        x = MARGIN + (number % 4) * (inner / 4)
        y = 108 + (number // 4) * 63
        name, is_share = figure["name"], figure["is_share"]
        parts += [
            _text(x, y, HEADS.get(name) or TITLES[name], 8.5, color=SOFT),
            _text(x, y + 18.5, said(figure["now"], name, is_share=is_share), 18),
            _text(x, y + 29.5, beneath(sheet, figure), 8, color=SOFT),
            _text(x, y + 39.5, before(figure), 8, color=SOFT),
            _text(x, y + 49.5, of_comparable(figure), 8, color=SOFT),
        ]
    return parts


def made_of(parts: Mapping[str, float | None], name: str) -> str:
    """Say what a figure was divided of and by; what cannot be known is a dash (law 16)."""
    return PARTS[name].format(**{side: counted(value) for side, value in parts.items()})


def beneath(sheet: Mapping[str, Any], figure: Mapping[str, Any]) -> str:
    """Say what a figure is of, or why nobody knows who was inside."""
    if figure["name"] != "peak_occupancy" or figure["now"] is not None:
        return made_of(figure["parts"], figure["name"])
    share = sheet["scanned"]["now"]
    if share is not None and share < COVERAGE:
        return "值守时间里扫码的太少"
    return "没有控制器信号，也没看到人"


def counted(value: float | None) -> str:
    """Say a count, or a duration to a tenth."""
    return "—" if value is None else f"{value:,.1f}".removesuffix(".0")


def before(figure: Mapping[str, Any]) -> str:
    """Say what the month before was: by this month's days where that can be, else as it was."""
    value, change = figure["before"], figure["change"]
    if figure["is_mixed"] and not figure["is_share"] and value is not None:
        value = round(value)
    told = said(value, figure["name"], is_share=figure["is_share"])
    if not figure["is_mixed"]:
        return f"上月全月 {told}"
    if change is None:
        return f"上月折算 {told}"
    return f"上月折算 {told}（{f'{change:+.1%}' if abs(change) >= 0.0005 else '持平'}）"


def of_comparable(figure: Mapping[str, Any]) -> str:
    """Say what is compared, where that is not the figure itself: a day that is not over counts
    above, as a holiday does that the month before had none of."""
    over = figure["over"]
    if over is None or over == figure["now"]:
        return ""
    return f"可比日 {said(over, figure['name'], is_share=figure['is_share'])}"


def said(value: float | None, name: str, *, is_share: bool) -> str:
    """Say a figure; what cannot be known is a dash and not a zero (law 16)."""
    if value is None:
        return "—"
    if is_share:
        # What is less than all is never said to be all, nor a little to be nothing.
        if 0 < value < 0.0005:
            return "<0.1%"
        return ">99.9%" if 0.9995 <= value < 1 else f"{value:.1%}"
    if name.endswith("_s"):
        return f"{round(value / 60)} 分钟"
    return counted(value)


def _foot(sheet: Mapping[str, Any]) -> list[str]:
    known = sheet["completeness"]
    made = datetime.fromisoformat(sheet["generated_at"])
    lines = [
        f"数据：{known['days_asked']} 天中 {known['days_counted']} 天已结束并统计"
        + ("；本月未完，数字还会变。" if known["days_counted"] < known["days_asked"] else "。")
        + "横线表示没有数据，不是零。比率下面的小字：分子 / 分母。",
        complete(sheet),
        inside(sheet),
        "上月折算：上月工作日、周末、节假日各自的日均，按本月可比日"
        "（已结束、上月有同类日期）的天数折算。上月全月：未折算。"
        + ("" if sheet["calendar_known"] else "节假日未导入，按星期算。"),
        *left_out(sheet["comparable"]),
        "人次：一次到访一次，离开十分钟内返回不另计。服务人数：同意记录者中不同的人。"
        "无人值守时段占比：在有人值守时间以外开始的人次之比。",
        "未满足需求：同一人半小时内被拒而未能进入，计一次。开门成功率：同意之中门真正打开的比例，无门磁的看继电器。"
        "停留：只计看到离开的到访。",
        "兑现率：承诺开放、且知道能否使用的时间中，真正能用的比例。"
        "承诺时间中未知：不知道能否使用的比例。在线率：控制器有联系的时间之比。",
        f"生成于 {made:%Y-%m-%d %H:%M}（{made.tzname()}），{_counted(sheet)}"
        "工会组织、地址和座位以生成时为准。",
    ]
    return [
        f'<path d="M{MARGIN} {FOOT}H{WIDTH - MARGIN}" stroke="{LINE}"/>',
        *(
            _text(MARGIN, FOOT + 11 + FOOT_LINE * number, line, _within(line, 7.5), color=SOFT)
            for number, line in enumerate(lines)
        ),
    ]


def _within(line: str, size: float) -> float:
    """Give the size at which a line stays within the margins, at most the one that is wanted.

    A Chinese character is as wide as it is high, a digit little more than half of that.
    """
    ems = sum(1 if east_asian_width(each) in "WFA" else 0.6 for each in line)
    return min(size, (WIDTH - 2 * MARGIN) / ems)


CLASSES: Mapping[str, str] = {
    "workday": "工作日",
    "weekend": "周末",
    "public_holiday": "法定节假日",
}
"""The classes of days that are compared."""


def left_out(comparable: Mapping[str, Any]) -> Sequence[str]:
    """Say which days that are over are not compared; nothing where all are."""
    if not comparable["left_out"]:
        return []
    if not comparable["days"]:
        over = comparable["over"]
        return [f"上月没有可比的日子（没有同类日期，或没有数据）：已结束的 {over} 天都未比较。"]
    days = "；".join(
        f"{CLASSES[name]} {runs(some)} 日" for name, some in comparable["left_out"].items()
    )
    return [
        f"可比日：已结束的 {comparable['over']} 天中的 {comparable['days']} 天。"
        f"未比较（上月没有同类日期，或没有数据）：{days}。"
    ]


def runs(days: Sequence[int]) -> str:
    """Write days of a month in order, such as `1-3、7`."""
    found: list[list[int]] = []
    for day in days:
        if found and found[-1][-1] == day - 1:
            found[-1].append(day)
        else:
            found.append([day])
    return "、".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in found)


def complete(sheet: Mapping[str, Any]) -> str:
    """Say of how much of the month anything is known, and of how much it was told."""
    known = next((each for each in sheet["figures"] if each["name"] == "known_share"), None)
    lines = [] if known is None else [("已过去、已统计、且驿站已登记的时间", known)]
    lines += [("装有控制器的时间里有信号的", sheet["heard"])]
    told = [
        f"{what} {said(each['now'], each['name'], is_share=True)}"
        f"（{made_of(each['parts'], each['name'])}）"
        for what, each in lines
    ]
    return f"完整度：{'；'.join(told)}。"


def inside(sheet: Mapping[str, Any]) -> str:
    """Say of how much of the free time it is known who was inside, and where it is not."""
    share = sheet["scanned"]
    told = f"{said(share['now'], 'scanned', is_share=True)}（{made_of(share['parts'], 'scanned')}）"
    return (
        f"在站人数：值守时间里有人扫码的 {told}；不到一半（全月，或一天中的那个小时），"
        "来的人多半没有记录，为横线或没有柱。"
    )


def _counted(sheet: Mapping[str, Any]) -> str:
    """Say up to when everything is counted, and whether figures may still change."""
    if sheet["rolled_up_to"] is None:
        return "尚未统计。"
    upto = datetime.fromisoformat(sheet["rolled_up_to"])
    again = "部分日子正在重新统计，数字还会变。" if sheet["recounting"] else ""
    return f"统计到 {upto:%m-%d %H:%M} 为止的变化。{again}"


def _text(
    x: float,
    y: float,
    text: str,
    size: float,
    *,
    color: str = INK,
    end: bool = False,
) -> str:
    anchor = ' text-anchor="end"' if end else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" '
        f'fill="{color}"{anchor}>{escape(text)}</text>'
    )


def _in(spec: Mapping[str, Any], family: str) -> dict[str, Any]:
    return {**spec, "config": spec["config"] | {"font": family}}


CONFIG: dict[str, Any] = {
    "background": None,
    "view": {"stroke": None},
    "axis": {
        "labelColor": SOFT,
        "titleColor": SOFT,
        "gridColor": "#e8edf1",
        "domainColor": LINE,
        "tickColor": LINE,
        "labelFontSize": 8,
        "titleFontSize": 8,
        "titleFontWeight": "normal",
    },
    "legend": {"labelFontSize": 8, "labelColor": SOFT, "symbolSize": 40, "title": None},
}


def _spec(values: list[dict[str, Any]], width: int, height: int, **more: Any) -> dict[str, Any]:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "config": CONFIG,
        "width": width,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": 2,
        "data": {"values": values},
        **more,
    }


def _from_zero(values: Sequence[float]) -> dict[str, Any]:
    """Scale from zero to the greatest value, and to one where all are zero."""
    return {"domain": [0, max([1, *values])], "nice": True}


def daily(days: Sequence[Mapping[str, Any]], width: int, height: int) -> dict[str, Any]:
    """Chart the visits of each day, with and without staff; a day without data has no bar."""
    values = [
        {"day": day["day"], "when": when, "visits": day[name], "order": order}
        for day in days
        for order, (name, when) in enumerate((("staffed", "有人值守"), ("unstaffed", "无人值守")))
    ]
    return _spec(
        values,
        width,
        height + 42,
        mark={"type": "bar", "width": {"band": 0.7}},
        encoding={
            "x": {
                "field": "day",
                "type": "ordinal",
                "title": None,
                "axis": {"labelAngle": 0},
                # Days without data keep their place.
                "scale": {"domain": [day["day"] for day in days]},
            },
            "y": {
                "field": "visits",
                "type": "quantitative",
                "title": "人次",
                "axis": {"tickMinStep": 1, "tickCount": 4},
                "scale": _from_zero([(d["staffed"] or 0) + (d["unstaffed"] or 0) for d in days]),
            },
            "color": {
                "field": "when",
                "type": "nominal",
                "scale": {"domain": ["有人值守", "无人值守"], "range": [PALE, RED]},
                "legend": {"orient": "top", "offset": 6},
            },
            "order": {"field": "order"},
        },
    )


def hourly(
    hours: Sequence[float | None], unit: str, color: str, width: int, height: int
) -> dict[str, Any]:
    """Chart a day's mean by the hour; an hour without data has no bar."""
    values = [{"hour": hour, "value": value} for hour, value in enumerate(hours)]
    ticks = list(range(0, 24, 3))
    return _spec(
        values,
        width,
        height + 24,
        mark={"type": "bar", "color": color, "width": {"band": 0.8}},
        encoding={
            "x": {
                "field": "hour",
                "type": "ordinal",
                "title": "时",
                "axis": {"labelAngle": 0, "values": ticks},
                "scale": {"domain": list(range(24))},
            },
            "y": {
                "field": "value",
                "type": "quantitative",
                "title": unit,
                "axis": {"tickCount": 4},
                "scale": _from_zero([hour or 0 for hour in hours]),
            },
        },
    )


def ranked(
    counts: Sequence[tuple[str, int]], width: int, color: str, most: int = 8
) -> dict[str, Any] | None:
    """Chart counts, most first; beyond `most` they are one; None when there are none."""
    if not counts:
        return None
    shown = list(counts)
    if len(shown) > most:
        rest = sum(count for _, count in shown[most - 1 :])
        shown = [*shown[: most - 1], ("其他", rest)]
    values = [{"name": name, "count": count} for name, count in shown]
    names = {"field": "name", "type": "nominal", "sort": None, "title": None}
    counts_x = {"field": "count", "type": "quantitative", "axis": None}
    label = {"type": "text", "align": "left", "dx": 4, "fontSize": 8, "color": SOFT}
    return _spec(
        values,
        width,
        24 + 15 * len(shown),
        encoding={"y": names, "x": counts_x},
        layer=[
            {"mark": {"type": "bar", "color": color, "height": {"band": 0.65}}},
            {
                "mark": label,
                "encoding": {"text": {"field": "count", "type": "quantitative", "format": ","}},
            },
        ],
    )


if __name__ == "__main__":
    sys.stdout.buffer.write(draw([json.load(sys.stdin)])[0])
