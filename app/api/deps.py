"""What handlers ask for: a transaction, the time, a page, the language. Aliases only.

`WriteTx` has function scope: its exit, the COMMIT, runs before the answer is sent. With the default
scope a handler would report success first and commit afterwards. Every dependency is `async`: the
framework sends plain functions to a thread, which costs more than most of them do.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.words import Language, preferred_language
from app.db.cursors import PageOf, PageRequest
from app.runtime import Runtime


async def runtime(request: Request) -> Runtime:
    """Give what this process holds."""
    held: Runtime = request.app.state.runtime
    return held


Held = Annotated[Runtime, Depends(runtime)]
"""The process's database, clocks, keys and caches."""


async def read_tx(held: Held) -> AsyncIterator[AsyncSession]:
    """Open a transaction that only reads."""
    async with held.database.read() as tx:
        yield tx


async def write_tx(held: Held) -> AsyncIterator[AsyncSession]:
    """Open a transaction that commits before the answer is sent."""
    async with held.database.write() as tx:
        yield tx


ReadTx = Annotated[AsyncSession, Depends(read_tx, scope="function")]
WriteTx = Annotated[AsyncSession, Depends(write_tx, scope="function")]


async def now(held: Held) -> datetime:
    """Say what time it is for this request."""
    return held.now()


Now = Annotated[datetime, Depends(now)]


async def page_request(
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=400)] = None,
) -> PageRequest:
    """Which page of a list."""
    return PageRequest(limit=limit, cursor=cursor)


Page = Annotated[PageRequest, Depends(page_request)]


async def language(accept_language: Annotated[str | None, Header()] = None) -> Language:
    """The language of sentences for people: Chinese unless the caller prefers English."""
    return preferred_language(accept_language)


Lang = Annotated[Language, Depends(language)]


def unchanged(if_none_match: str | None, etag: str) -> bool:
    """Whether the caller holds this version already (RFC 9110, 13.1.2: a list, weakly compared)."""
    held = [each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")]
    return etag in held or "*" in held


def link_next(request: Request, response: Response, found: PageOf[Any]) -> None:
    """Say in the `Link` header where the next page is."""
    if found.next is not None:
        url = request.url.include_query_params(cursor=found.next)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
