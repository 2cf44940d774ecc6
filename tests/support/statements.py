"""Which SQL statements a request costs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from app.db.engine import Database


@contextmanager
def statements_of(database: Database) -> Iterator[list[str]]:
    """Collect every statement sent, BEGIN and COMMIT left out."""
    sent: list[str] = []

    def note(_c: Any, _k: Any, statement: str, _p: Any, _x: Any, _m: bool) -> None:
        if not statement.startswith("BEGIN"):
            sent.append(statement)

    engines = [database.engine.sync_engine]
    if database.is_embedded:  # Elsewhere the reader is the same engine with another option.
        engines.append(database.reading_engine.sync_engine)
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)
