"""Options that several commands share: of which days, of which places, into which file."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from app.places.rules import EARLIEST, LATEST


def _day(day: datetime) -> datetime:
    if not EARLIEST.date() <= day.date() < LATEST.date():
        raise typer.BadParameter("the date must lie between 2000 and 2100")
    return day


FromDay = Annotated[
    datetime,
    typer.Option("--from", formats=["%Y-%m-%d"], callback=_day, help="First local day."),
]
ToDay = Annotated[
    datetime,
    typer.Option("--to", formats=["%Y-%m-%d"], callback=_day, help="The day after the last."),
]
BranchName = Annotated[
    str | None, typer.Option("--unit", help="Name or path of a branch; else all.")
]
StationCode = Annotated[str | None, typer.Option("--station", help="Code of the only station.")]
OutFile = Annotated[
    Path | None, typer.Option("--out", dir_okay=False, help="File; else standard output.")
]
