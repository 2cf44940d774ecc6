"""The schema: bring it to the newest revision, and refuse to start on any other."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.db.engine import Database

ROOT = Path(__file__).resolve().parents[2]


class SchemaNotCurrent(RuntimeError):
    """The database's schema is not the one this version needs."""


class NotEmpty(RuntimeError):
    """The database has rows where there must be none yet."""


def config() -> Config:
    """Give Alembic's configuration, whatever the working folder."""
    found = Config(ROOT / "alembic.ini")
    found.set_main_option("script_location", str(ROOT / "migrations"))
    return found


async def migrate(database: Database, revision: str = "head") -> None:
    """Bring the schema to a revision."""

    def upgrade(connection: sa.Connection) -> None:
        alembic = config()
        alembic.attributes["connection"] = connection
        if revision == "base":
            command.downgrade(alembic, revision)
        else:
            command.upgrade(alembic, revision)

    async with database.engine.begin() as connection:
        await connection.run_sync(upgrade)


async def require_current(database: Database) -> None:
    """Raise SchemaNotCurrent, with the command that mends it, unless the schema is the newest."""
    newest = ScriptDirectory.from_config(config()).get_current_head()

    def revision(connection: sa.Connection) -> str | None:
        return MigrationContext.configure(connection).get_current_revision()

    async with database.reading_engine.connect() as connection:
        current = await connection.run_sync(revision)
    if current != newest:
        raise SchemaNotCurrent(
            f"the database is at revision {current or 'none'}, this version needs {newest}; "
            "run: yizhan migrate"
        )
