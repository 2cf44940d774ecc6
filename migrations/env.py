"""How Alembic reaches the database: through the connection that `app.db.schema` hands in.

`alembic` on the command line works too; it reads the same settings as the server.
"""

import asyncio
from typing import Any, Literal

import sqlalchemy as sa
from alembic import context

from app.db.engine import Database
from app.db.types import Base, Instant, Json, Text
from app.settings import Settings
from app.tables import every_table

every_table()


def spell(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Write our column types as the template's constants, so that a migration outlives them."""
    if kind != "type":
        return False
    match item:
        case Instant():
            return "INSTANT"
        case sa.Enum():
            return "WORD"
        case _ if repr(item) == repr(Text):
            return "TEXT"
        case _ if repr(item) == repr(Json):
            return "JSON"
        case _:
            return False


def run(connection: sa.Connection) -> None:
    """Run the migrations on this connection."""
    if connection.dialect.name == "postgresql":
        # A migration that waits for a lock would make everybody behind it wait too.
        connection.execute(sa.text("SET LOCAL lock_timeout = '4s'"))
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_type=True,
        render_item=spell,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_from_command_line() -> None:
    """Open the configured database."""
    database = Database(Settings().effective_database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(run)
    await database.dispose()


handed_in = context.config.attributes.get("connection")
if handed_in is not None:
    run(handed_in)
else:
    asyncio.run(run_from_command_line())
