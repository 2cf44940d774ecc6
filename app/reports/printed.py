"""The catalogue as a page: `python -m app.reports.printed > docs/reports.md`."""

import sys

from app.reports.catalogue import described
from app.reports.comparing import MOST_ROWS
from app.reports.dimensions import DIMENSIONS
from app.reports.frame import MOST_ROWS as AT_ONCE
from app.reports.frame import MOST_STREAMED
from app.reports.workbook import MOST_ROWS as MOST_IN_A_BOOK


def page() -> str:
    """Write the catalogue as a page."""
    lines = [
        "# Reports",
        "",
        "Every figure, how it is computed, and when it is null. Printed from the catalogue;",
        "the same is at `GET /v1/admin/reports`. Days are the station's own; `to` is excluded.",
        "`GET /v1/admin/reports/{report}/source?figure=...` tells of any figure its counters, how",
        "complete they are, and of one station and at most 31 days the rows that were counted.",
        "Of promised time the rows are its pieces: what held in each, who told of it, and as what",
        "it counts; of unmet demand the refused scans, each with the `demand` that it is a part",
        "of, of which those that are not `met` are counted; of covered, reporting and controllers'",
        "time hours, each with what was counted in it; of openings the commands, each with whether",
        "a contact was there (`with_contact`); of open faults each as one, from its beginning. A",
        "figure beside the period before is asked for by its own name, `visits_change`: `on_days`",
        "tells what was counted on the days of each class. Of the ranking, `ranked=` says by what,",
        "and the counters and rows are those of that figure.",
        "Asked like the report, with its `by` and `bucket`, it speaks of one row, by the names",
        "that it has itself: `of_station`, `of_unit`, `of_operating_model`, `of_day`, `of_hour`,",
        "`of_weekday`, `of_day_class`, and of facilities `of_kind`. Of `by=weekday&bucket=hour`,",
        "`of_weekday=1&of_hour=8` is what came on Mondays from 8 to 9.",
        "",
        "A place is cut by `bucket`: `hour` is every hour of every day, `hour_of_day` each of the",
        "24, of all days together; so are `weekday` and `day_class`. Rows of time, `by=hour`, are",
        "the 24 as well. A station that was retired before the period is no row, and is missing",
        "in none; asked for by name, it is one. Where somebody stayed on, or was let in by a",
        "controller that did not know yet, it is told in every cut what happened; none of its",
        "time is missing for that, and none of its seats counted with those of others.",
        "",
        "`by=branch` compares what lies below a place: a row for each unit directly below `unit=`,",
        "or below the one unit that the administrator has, with everything below it, and one for",
        "what that unit keeps itself. A city of several units at the top has a row for each that",
        "has stations in the period; one without any changes nothing. Sums that are kept are read,",
        "so distinct workers stay exact: whoever came to two districts counts in both, and once in",
        "each. With `station=` it is the row of the station's unit, as by `unit`.",
        "",
        "With `format=csv` or `format=xlsx` a report is a file. A CSV is one table; what the JSON",
        "says beside its rows, headers of the answer say, each as JSON: `Report-Completeness`,",
        "`Report-Rolled-Up-To`, `Report-Recounting`, `Report-Calendar-Known`,",
        "`Report-Generated-At`, and, of `access` for the whole city,",
        "`Report-Refused-Without-Station`: refusals that name no station. A workbook says the same",
        "on its second sheet, and `yizhan report` on the terminal. While `Report-Recounting` is",
        "`true`, some figures may still change.",
        "",
        f"JSON has at most {AT_ONCE:,} rows; of facilities, for each kind of them. Files, also of",
        "`yizhan report`, are computed and written part by part, of at most",
        f"{MOST_STREAMED:,} places times pieces of time, a workbook of {MOST_IN_A_BOOK:,} rows.",
        "Files of occupations come month by month, all places of one and then all of the next, for",
        "what is hidden is said of each month by itself; elsewhere all of a place stands together.",
        "",
        "Which days are holidays matters where rows are cut by `day_class`, and with",
        "`compare=before`. Where then `calendar_known` is `false`, holidays of a year are not",
        "imported, and its days are of the class of their weekday. In any other report it is",
        "`null`: modes and promises are counted as they were recorded, whatever came since.",
        "",
        "The page at `/admin/reports` shows all of it, in Chinese and English. It speaks the same",
        "API as any other client; its choices stand in its address, so that a link to a figure can",
        "be sent, and be opened by whoever may see the same.",
        "",
    ]
    lines += ["A row, or a piece of one, is of", ""]
    lines += [f"- `{name}`: {said.english} ({said.chinese})." for name, said in DIMENSIONS.items()]
    lines += [""]
    for one in described():
        lines += [f"## {one.report}", "", f"{one.says[0].upper()}{one.says[1:]}.", ""]
        lines += [f"A row for each: {', '.join(one.by)}."]
        if one.buckets:
            lines[-1] += f" Cut by: {', '.join(one.buckets)}."
        lines += ["", f"Privacy: {one.privacy}."]
        if one.compared:
            names = ", ".join(f"`{name}`" for name in one.compared)
            lines += ["", f"With `compare=before`, beside each of {names}:", ""]
            lines += [f"- `{ending}`: {says}." for ending, says in one.endings.items()]
            lines += [
                "",
                "Places are compared over the whole period or by `hour_of_day`, and all of",
            ]
            lines += ["them together by `hour`; a row of some days alone has no like before it."]
            lines += ["Percentiles, peaks and distinct workers do not add up from day to day, and"]
            lines += ["what stands there now is of no period: they are not compared; nor are"]
            lines += ["anonymous visits, which are only known where distinct workers are."]
            lines += ["Days of a class that only one period has are left out of both, and the rest"]
            lines += ["is compared. Each row says of which days, and how complete they are before:"]
            lines += ["", *(f"- `{name}`: {says}." for name, says in one.beside.items()), ""]
            lines += [f"JSON compares at most {MOST_ROWS:,} rows; of more it is refused before"]
            lines += ["it is computed. CSV and workbooks are written part by part, and have what"]
            lines += ["other reports may have."]
        lines += ["", "| field | 名称 | formula | in | of | by |", "|---|---|---|---|---|---|"]
        lines += [
            f"| `{field.name}` | {field.title} | {field.formula} | {field.unit} "
            f"| {field.numerator or ''} | {field.denominator or ''} |"
            for field in one.fields
        ]
        if one.ranked:
            lines += ["", "Ranked by one of these, as the report has it that each is from. Where a"]
            lines += ["station must be heard, one that was not is left out, as `percentile` says."]
            lines += ["", "| figure | 名称 | report | formula | in | of | by | must be heard |"]
            lines += ["|---|---|---|---|---|---|---|---|"]
            lines += [
                f"| `{field.name}` | {field.title} | {field.report} | {field.formula} "
                f"| {field.unit} | {field.numerator or ''} | {field.denominator or ''} "
                f"| {'yes' if field.must_be_heard else 'no'} |"
                for field in one.ranked
            ]
        lines += [""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
