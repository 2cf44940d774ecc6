"""Signing keys: create, rotate, retire, publish (promises 5.3).

    pending (published, not signing) -> active -> retiring (verifies only) -> retired

A key belongs to one token kind. Its private half is stored under the key-encryption key and
destroyed when the key retires.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import Action, Actor, Subject, record
from app.db.engine import Database
from app.db.serial import alone
from app.db.upsert import upsert
from app.db.wakeups import LocalWakeups
from app.doors import tokens
from app.doors.tables import KeyState, SigningKey
from app.doors.tokens import TokenKind
from app.errors import Conflict, NotFound
from app.vault import Vault

TOPIC = "keys"
"""Rings when a key changed."""

PUBLISHED_BEFORE_USE = timedelta(days=8)
"""A key stands in the JWKS for the cache time and the longest offline window before it signs."""

VERIFIES_AFTER_USE = {
    TokenKind.DISPLAY: timedelta(days=8),
    TokenKind.PASS: timedelta(days=8),
    TokenKind.POSTER: timedelta(days=3650),
}
"""How long a key still verifies after its last signature; posters hang for years."""


POSTERS_KNOWN = 20_000
"""How many good posters a process remembers: a city's doors several times over."""


class KeyNotFound(NotFound):
    """There is no such key."""


class KeyInUse(Conflict):
    """This key still signs or is still needed to verify; it cannot be retired."""


class KeyTooYoung(Conflict):
    """The pending key has not been published for long enough to sign."""


@dataclass(frozen=True, slots=True)
class _Held:
    signing: Mapping[TokenKind, tokens.SigningKey]
    verifying: Mapping[str, tokens.VerifyingKey]
    jwks: dict[str, Any]


class KeyRing:
    """The keys in this process's memory; reloaded when the bell `keys` rings."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._held = _Held({}, {}, {"keys": []})
        self._stale = True
        self._posters: dict[str, tokens.PosterClaims] = {}

    def forget(self, _topic: str | None = None) -> None:
        """Read the rows again before the next use."""
        self._stale = True

    @property
    def is_stale(self) -> bool:
        """Whether the rows must be read again."""
        return self._stale

    async def load(self, tx: AsyncSession) -> None:
        """Read every key that still signs or verifies."""
        self._stale = False  # Before the read: a bell that rings meanwhile asks for another.
        try:
            rows = await list_keys(tx)
        except BaseException:
            self._stale = True
            raise
        self._posters.clear()
        live = [row for row in rows if row.state is not KeyState.RETIRED]
        self._held = _Held(
            signing={
                row.kind: tokens.signing_key(
                    row.kid, row.kind, self._vault.unwrap(row.private_wrapped, purpose=row.kid)
                )
                for row in live
                if row.state is KeyState.ACTIVE and row.private_wrapped is not None
            },
            verifying={
                row.kid: tokens.verifying_key(row.kid, row.kind, row.public_key) for row in live
            },
            jwks=_jwks(live),
        )

    async def fresh(self, database: Database) -> "KeyRing":
        """Reload if a bell rang since the last use; without SQL otherwise."""
        if self._stale:
            async with database.read() as tx:
                await self.load(tx)
        return self

    @property
    def verifying(self) -> Mapping[str, tokens.VerifyingKey]:
        """The keys that verify, by `kid`."""
        return self._held.verifying

    def poster(self, token: str) -> tokens.PosterClaims | tokens.TokenRefusal:
        """Check a poster's signature; a good one is remembered as long as the keys stand.

        A poster never expires, so the same text means the same for as long; its generation is the
        door's to judge, every time.
        """
        known = self._posters.get(token)
        if known is not None:
            return known
        found = tokens.verify_poster(self.verifying, token)
        if isinstance(found, tokens.PosterClaims):
            if len(self._posters) >= POSTERS_KNOWN:
                self._posters.clear()
            self._posters[token] = found
        return found

    def door_code(
        self, token: str
    ) -> tokens.PosterClaims | tokens.DisplayClaims | tokens.TokenRefusal:
        """Check a code that names a door, printed or on a screen; its time is not judged here."""
        if tokens.kind_of(token) is TokenKind.DISPLAY:
            return tokens.read_display(self.verifying, token)
        return self.poster(token)

    def signing(self, kind: TokenKind) -> tokens.SigningKey:
        """The key that signs tokens of this kind."""
        return self._held.signing[kind]

    @property
    def jwks(self) -> dict[str, Any]:
        """The public keys as a JSON Web Key Set (RFC 7517)."""
        return self._held.jwks


def _jwks(rows: Iterable[SigningKey]) -> dict[str, Any]:
    keys = [tokens.jwk(tokens.verifying_key(row.kid, row.kind, row.public_key)) for row in rows]
    return {"keys": sorted(keys, key=lambda key: str(key["kid"]))}


async def list_keys(tx: AsyncSession) -> Sequence[SigningKey]:
    """Give every key that ever was, oldest first."""
    found = await tx.scalars(sa.select(SigningKey).order_by(SigningKey.created_at, SigningKey.kid))
    return found.all()


async def ensure(tx: AsyncSession, vault: Vault, *, at: datetime) -> None:
    """Make the first key of every kind; a second process that starts at once makes none."""
    for kind in TokenKind:
        await alone(tx, _moves(kind))
        await _insert(tx, vault, kind, KeyState.ACTIVE, at=at)


async def rotate(
    tx: AsyncSession,
    vault: Vault,
    wakeups: LocalWakeups,
    kind: TokenKind,
    *,
    actor: Actor,
    at: datetime,
    emergency: bool = False,
) -> SigningKey:
    """Go one step: publish a pending key, or let a published one sign in the active one's place.

    Poster keys sign at once, since only this server verifies them. `emergency` skips the wait and
    retires the old key. Returns the key that was made or promoted; raises KeyTooYoung.
    """
    await alone(tx, _moves(kind))
    pending = await tx.scalar(
        sa.select(SigningKey)
        .where(SigningKey.kind == kind, SigningKey.state == KeyState.PENDING)
        .execution_options(populate_existing=True)
    )
    at_once = emergency or kind is TokenKind.POSTER
    if pending is None:
        pending = await _insert(tx, vault, kind, KeyState.PENDING, at=at)
        promotes = at_once
    elif not at_once and at - pending.created_at < PUBLISHED_BEFORE_USE:
        ready_at = pending.created_at + PUBLISHED_BEFORE_USE
        raise KeyTooYoung(f"Key {pending.kid} may sign from {ready_at.isoformat()}.")
    else:
        promotes = True
    assert pending is not None
    if promotes:
        await _demote_active(tx, kind, retired=emergency, at=at)
        await tx.execute(
            sa.update(SigningKey)
            .where(SigningKey.kid == pending.kid)
            .values(state=KeyState.ACTIVE, changed_at=at)
        )
    subject = Subject("key", pending.kid)
    await record(tx, actor, Action.KEY_ROTATED, subject, at=at, after={"kind": kind.value})
    await wakeups.wake(tx, TOPIC)
    return pending


async def retire(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    kid: str,
    *,
    actor: Actor,
    at: datetime,
    emergency: bool = False,
) -> SigningKey:
    """Destroy a retiring key once no good token can carry it; raises KeyNotFound, KeyInUse.

    `emergency`: at once, whatever was signed with it; a key that signs is rotated first.
    """
    kind = await tx.scalar(sa.select(SigningKey.kind).where(SigningKey.kid == kid))
    if kind is None:
        raise KeyNotFound
    await alone(tx, _moves(kind))
    key = await tx.get_one(SigningKey, kid, populate_existing=True)
    since = at - key.changed_at
    if key.state is KeyState.RETIRED:
        return key
    over = key.state is KeyState.RETIRING and since >= VERIFIES_AFTER_USE[key.kind]
    if not over and not (emergency and key.state is not KeyState.ACTIVE):
        raise KeyInUse
    key.state = KeyState.RETIRED
    key.private_wrapped = None
    key.changed_at = at
    await record(tx, actor, Action.KEY_ROTATED, Subject("key", kid), at=at, after={"retired": True})
    await wakeups.wake(tx, TOPIC)
    return key


def _moves(kind: TokenKind) -> str:
    """Name what has one transaction at a time: the states of a kind's keys hang together.

    No row can be locked in its place: the one that signs is another when its lock is free.
    """
    return f"the states of {kind.value} keys"


async def _demote_active(tx: AsyncSession, kind: TokenKind, *, retired: bool, at: datetime) -> None:
    changes: dict[str, Any] = {"state": KeyState.RETIRING, "changed_at": at}
    if retired:
        changes = {"state": KeyState.RETIRED, "private_wrapped": None, "changed_at": at}
    await tx.execute(
        sa.update(SigningKey)
        .where(SigningKey.kind == kind, SigningKey.state == KeyState.ACTIVE)
        .values(**changes)
    )


async def _insert(
    tx: AsyncSession, vault: Vault, kind: TokenKind, state: KeyState, *, at: datetime
) -> SigningKey | None:
    key = tokens.generate_key(kind)
    inserted = await tx.execute(
        upsert(tx, SigningKey)
        .values(
            kid=key.kid,
            kind=kind,
            state=state,
            public_key=tokens.public_bytes(key),
            private_wrapped=vault.wrap(tokens.private_bytes(key), purpose=key.kid),
            created_at=at,
            changed_at=at,
        )
        .on_conflict_do_nothing()
        .returning(SigningKey)
    )
    found: SigningKey | None = inserted.scalar_one_or_none()
    return found
