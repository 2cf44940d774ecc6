"""Two versions that count by different rules, side by side: the newer one counts alone.

While new processes take the place of old ones both look for what changed, and settle each other's
dues. So a version says that it counts before it looks for anything, and an older one that reads
so writes nothing any more: neither a day, nor what is due of it. It looks in the very write that
would settle a day, and so also in the midst of a pass: a due that it took before is made anew by
whatever the newer version finds, and is the newer one's to settle.

When the newer version is not heard for long, it was taken back: the older one counts every day
anew, and makes the newer one forget how far it had come, so that it does the same if it returns.
"""

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import table_of
from app.reports import changes
from app.reports.tables import RollupMark

_MARK = table_of(RollupMark)

COUNTS = "counts by rules "
"""What a mark is named, before the number of the rules: when they last began a pass or went on."""

HEARD_FOR = timedelta(hours=6)
"""So long a version is taken to be there after it said so."""


async def is_superseded(tx: AsyncSession, *, at: datetime) -> bool:
    """Say whether a version with newer rules counts."""
    return any(last > at - HEARD_FOR for last in (await _newer(tx)).values())


async def announce(tx: AsyncSession, *, at: datetime) -> bool:
    """Say that this version counts, before it looks for anything; gives whether it may.

    Of newer ones that are gone it is forgotten how far they had come, and of this one too: every
    day is counted anew by its rules.
    """
    if await is_superseded(tx, at=at):
        return False
    gone = [
        name for rules in await _newer(tx) for name in (f"{COUNTS}{rules}", changes.changed(rules))
    ]
    if gone:
        # What they counted meanwhile is to be counted anew here, too.
        gone.append(changes.CHANGED)
        await tx.execute(sa.delete(_MARK).where(_MARK.c.name.in_(gone)))
    await changes.move(tx, f"{COUNTS}{changes.RULES}", at)
    return True


async def _newer(tx: AsyncSession) -> dict[int, datetime]:
    """Give when versions with newer rules last said that they count."""
    rows = await tx.execute(
        sa.select(_MARK.c.name, _MARK.c.at).where(_MARK.c.name.startswith(COUNTS))
    )
    found = {int(name.removeprefix(COUNTS)): last for name, last in rows}
    return {rules: last for rules, last in found.items() if rules > changes.RULES}
