"""The migrations make what the tables say; down and up again, on both databases."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from app.audit import Action, AuditEntry
from app.db import schema
from app.db.engine import Database, embedded_url
from app.db.schema import SchemaNotCurrent
from app.db.types import new_id
from app.tables import every_table
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def empty(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        database = Database(embedded_url(tmp_path / "empty.db"))
        yield database
        await database.dispose()
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    server.create_database("migrations")
    database = Database(server.url("migrations"))
    yield database
    await database.dispose()
    server.drop_database("migrations")


async def differences(database: Database) -> list[Any]:
    def compare(connection: sa.Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        return list(compare_metadata(context, every_table()))

    async with database.engine.connect() as connection:
        return await connection.run_sync(compare)


async def test_up_from_nothing_is_what_the_tables_say(empty: Database) -> None:
    await schema.migrate(empty)
    await schema.require_current(empty)
    assert await differences(empty) == []


async def test_down_and_up_again(empty: Database) -> None:
    await schema.migrate(empty)
    await schema.migrate(empty, "base")
    with pytest.raises(SchemaNotCurrent, match="run: yizhan migrate"):
        await schema.require_current(empty)
    await schema.migrate(empty)
    assert await differences(empty) == []


def test_file_names_are_numbered() -> None:
    for revision in ScriptDirectory.from_config(schema.config()).walk_revisions():
        assert Path(revision.path).name.startswith(f"{revision.revision}_")


async def test_the_audit_trail_cannot_be_changed(empty: Database) -> None:
    await schema.migrate(empty)
    async with empty.write() as tx:
        await tx.execute(
            sa.insert(AuditEntry).values(
                id=new_id(),
                at=datetime(2026, 11, 23, tzinfo=UTC),
                action=Action.KEY_ROTATED,
                subject="key:k",
            )
        )
    for statement in ("UPDATE audit_entries SET subject = 'x'", "DELETE FROM audit_entries"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with empty.write() as tx:
                await tx.execute(sa.text(statement))
