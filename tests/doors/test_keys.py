"""Signing keys go pending, active, retiring, retired; good tokens are never refused on the way."""

import asyncio

import httpx
import pytest
import sqlalchemy as sa

from app.audit import COMMAND_LINE
from app.doors import keys
from app.doors.keys import (
    PUBLISHED_BEFORE_USE,
    VERIFIES_AFTER_USE,
    KeyInUse,
    KeyNotFound,
    KeyTooYoung,
)
from app.doors.registry import poster_token
from app.doors.tables import KeyState, SigningKey
from app.doors.tokens import PosterClaims, TokenKind
from app.runtime import Runtime
from tests.conftest import Clock
from tests.support.worlds import a_scene

pytestmark = pytest.mark.anyio


async def rotate(runtime: Runtime, kind: TokenKind, *, emergency: bool = False) -> str:
    async with runtime.database.write() as tx:
        key = await keys.rotate(
            tx,
            runtime.vault,
            runtime.wakeups,
            kind,
            actor=COMMAND_LINE,
            at=runtime.now(),
            emergency=emergency,
        )
        kid = key.kid
    await runtime.keys.fresh(runtime.database)
    return kid


async def retire(runtime: Runtime, kid: str, *, emergency: bool = False) -> None:
    async with runtime.database.write() as tx:
        await keys.retire(
            tx,
            runtime.wakeups,
            kid,
            actor=COMMAND_LINE,
            at=runtime.now(),
            emergency=emergency,
        )
    await runtime.keys.fresh(runtime.database)


async def states(runtime: Runtime, kind: TokenKind) -> list[KeyState]:
    async with runtime.database.read() as tx:
        found = await tx.scalars(
            sa.select(SigningKey.state)
            .where(SigningKey.kind == kind)
            .order_by(SigningKey.created_at, SigningKey.changed_at)
        )
        return list(found)


async def published(client: httpx.AsyncClient) -> set[str]:
    answer = await client.get("/.well-known/jwks.json")
    return {key["kid"] for key in answer.json()["keys"]}


async def test_there_is_one_signing_key_of_each_kind(runtime: Runtime) -> None:
    for kind in TokenKind:
        assert await states(runtime, kind) == [KeyState.ACTIVE]


async def test_a_poster_key_signs_at_once_and_old_posters_still_open(runtime: Runtime) -> None:
    scene = await a_scene(runtime)
    kid = await rotate(runtime, TokenKind.POSTER)
    assert runtime.keys.signing(TokenKind.POSTER).kid == kid
    assert isinstance(runtime.keys.poster(scene.poster), PosterClaims)
    fresh = poster_token(runtime.keys.signing(TokenKind.POSTER), scene.door)
    assert isinstance(runtime.keys.poster(fresh), PosterClaims)


async def test_after_an_emergency_the_old_posters_open_nothing(runtime: Runtime) -> None:
    scene = await a_scene(runtime)
    assert isinstance(runtime.keys.poster(scene.poster), PosterClaims)
    await rotate(runtime, TokenKind.POSTER, emergency=True)
    assert not isinstance(runtime.keys.poster(scene.poster), PosterClaims)
    assert await states(runtime, TokenKind.POSTER) == [KeyState.RETIRED, KeyState.ACTIVE]


async def test_a_pass_key_is_published_before_it_signs(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    before = runtime.keys.signing(TokenKind.PASS).kid
    pending = await rotate(runtime, TokenKind.PASS)
    assert pending in await published(client)
    assert runtime.keys.signing(TokenKind.PASS).kid == before
    clock.advance(PUBLISHED_BEFORE_USE.total_seconds() - 1)
    with pytest.raises(KeyTooYoung):
        await rotate(runtime, TokenKind.PASS)
    clock.advance(1)
    assert await rotate(runtime, TokenKind.PASS) == pending
    assert runtime.keys.signing(TokenKind.PASS).kid == pending
    assert {before, pending} <= await published(client)


async def test_a_key_that_is_needed_cannot_be_retired(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    old = runtime.keys.signing(TokenKind.PASS).kid
    with pytest.raises(KeyInUse):
        await retire(runtime, old)
    await rotate(runtime, TokenKind.PASS)
    clock.advance(PUBLISHED_BEFORE_USE.total_seconds())
    await rotate(runtime, TokenKind.PASS)
    with pytest.raises(KeyInUse):
        await retire(runtime, old)
    clock.advance(VERIFIES_AFTER_USE[TokenKind.PASS].total_seconds())
    await retire(runtime, old)
    assert old not in await published(client)
    async with runtime.database.read() as tx:
        assert (await tx.get_one(SigningKey, old)).private_wrapped is None
    with pytest.raises(KeyNotFound):
        await retire(runtime, "nobody")


async def test_rotations_at_once_leave_one_signing_key(runtime: Runtime) -> None:
    made = await asyncio.gather(*(rotate(runtime, TokenKind.POSTER) for _ in range(4)))
    found = await states(runtime, TokenKind.POSTER)
    assert len(set(made)) == 4
    assert sorted(found) == [KeyState.ACTIVE, *[KeyState.RETIRING] * 4]


async def test_two_publish_a_key_at_once_and_one_is_too_early(runtime: Runtime) -> None:
    answers = await asyncio.gather(
        *(rotate(runtime, TokenKind.PASS) for _ in range(3)), return_exceptions=True
    )
    refused = [answer for answer in answers if not isinstance(answer, str)]
    assert [type(answer) for answer in refused] == [KeyTooYoung, KeyTooYoung]
    assert await states(runtime, TokenKind.PASS) == [KeyState.ACTIVE, KeyState.PENDING]


@pytest.mark.parametrize("first", ["rotation", "retirement"])
async def test_a_key_that_is_promoted_and_retired_at_once_leaves_one_that_signs(
    runtime: Runtime, clock: Clock, first: str
) -> None:
    pending = await rotate(runtime, TokenKind.PASS)
    clock.advance(PUBLISHED_BEFORE_USE.total_seconds())
    acts = [rotate(runtime, TokenKind.PASS), retire(runtime, pending, emergency=True)]
    if first == "retirement":
        acts.reverse()
    answers = await asyncio.gather(*acts, return_exceptions=True)
    assert {type(answer) for answer in answers if isinstance(answer, Exception)} <= {KeyInUse}
    found = await states(runtime, TokenKind.PASS)
    assert found.count(KeyState.ACTIVE) == 1


async def test_no_private_half_is_published(client: httpx.AsyncClient, runtime: Runtime) -> None:
    answer = await client.get("/.well-known/jwks.json")
    assert all(
        set(key) >= {"kty", "crv", "x", "kid"} and "d" not in key for key in answer.json()["keys"]
    )
    async with runtime.database.read() as tx:
        for row in await tx.scalars(sa.select(SigningKey)):
            assert row.private_wrapped is not None
            private = runtime.vault.unwrap(row.private_wrapped, purpose=row.kid)
            assert private not in row.private_wrapped
