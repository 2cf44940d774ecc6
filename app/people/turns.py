"""Turns: who counts a budget locks its row, so that nobody overtakes a limit by asking at once."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from app.db.upsert import upsert
from app.people.tables import LoginTurn


async def take_turns(tx: AsyncSession, subjects: Sequence[str], *, at: datetime) -> None:
    """Lock what is about to be counted until the transaction ends; always in one order."""
    statement = upsert(tx, LoginTurn).values(
        [{"subject": subject, "taken_at": at} for subject in sorted(subjects)]
    )
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=["subject"], set_={"taken_at": statement.excluded.taken_at}
        )
    )


def phone_turn(phone_index: bytes) -> str:
    """Name what is counted per number."""
    return f"phone:{phone_index.hex()}"
