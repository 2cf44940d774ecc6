"""The schema: bring it to the newest revision, and refuse to start on any other."""

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from app.db.engine import Database

if TYPE_CHECKING:
    from alembic.config import Config

ROOT = Path(__file__).resolve().parents[2]


class SchemaNotCurrent(RuntimeError):
    """The database's schema is not the one this version needs."""


class NotEmpty(RuntimeError):
    """The database has rows where there must be none yet."""


def config() -> "Config":
    """Give Alembic's configuration, whatever the working folder."""
    from alembic.config import Config

    found = Config(ROOT / "alembic.ini")
    found.set_main_option("script_location", str(ROOT / "migrations"))
    return found


async def migrate(database: Database, revision: str = "head") -> None:
    """Bring the schema to a revision."""

    from alembic import command

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
    """Raise SchemaNotCurrent, with the command that mends it, unless the schema is the newest.

    Revisions are told by the names of their files: a process that serves needs nothing of Alembic,
    which takes a tenth of a second and ten megabytes to load.
    """
    newest = max(
        path.name.partition("_")[0] for path in (ROOT / "migrations/versions").glob("*.py")
    )

    def revision(connection: sa.Connection) -> str | None:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        found = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return None if found is None else str(found)

    async with database.reading_engine.connect() as connection:
        current = await connection.run_sync(revision)
    if current != newest:
        raise SchemaNotCurrent(
            f"the database is at revision {current or 'none'}, this version needs {newest}; "
            "run: yizhan migrate"
        )
