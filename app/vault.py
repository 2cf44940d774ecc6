"""Purpose keys, wrapped by one key-encryption key that never lies in the database (promises 5.1).

Each key has one purpose and a version. The key-encryption key comes from `SECRET_KEK`; in
development it is made once in `DATA_DIR/kek`.
"""

import os
import secrets
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base
from app.db.upsert import upsert

PURPOSES = ("phone", "phone-index", "otp-pepper", "totp", "owner")
"""What the purpose keys are for; signing keys are wrapped the same way, in their own rows."""

_NONCE_BYTES = 12


class WrongKek(RuntimeError):
    """SECRET_KEK does not open this database's keys."""


class PurposeKey(Base):
    """One wrapped key."""

    __tablename__ = "purpose_keys"

    purpose: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    wrapped: Mapped[bytes]
    created_at: Mapped[datetime]


class Vault:
    """The unwrapped purpose keys of this process."""

    def __init__(self, kek: bytes) -> None:
        self._kek = AESGCM(kek)
        self._keys: dict[str, bytes] = {}

    def wrap(self, key: bytes, *, purpose: str) -> bytes:
        """Seal a key for storage; it opens only under the same purpose."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._kek.encrypt(nonce, key, purpose.encode())

    def unwrap(self, wrapped: bytes, *, purpose: str) -> bytes:
        """Open a stored key; raises WrongKek."""
        try:
            return self._kek.decrypt(
                wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], purpose.encode()
            )
        except InvalidTag as error:
            raise WrongKek("SECRET_KEK does not open this database's keys") from error

    def key(self, purpose: str) -> bytes:
        """Give the newest key of a purpose; it was loaded at start."""
        return self._keys[purpose]

    async def load(self, tx: AsyncSession, *, at: datetime) -> None:
        """Read every purpose key, and make the missing ones."""
        for purpose in PURPOSES:
            wrapped = self.wrap(secrets.token_bytes(32), purpose=f"{purpose}|1")
            await tx.execute(
                upsert(tx, PurposeKey)
                .values(purpose=purpose, version=1, wrapped=wrapped, created_at=at)
                .on_conflict_do_nothing(index_elements=["purpose", "version"])
            )
        rows = await tx.scalars(sa.select(PurposeKey).order_by(PurposeKey.version))
        for row in rows:
            self._keys[row.purpose] = self.unwrap(
                row.wrapped, purpose=f"{row.purpose}|{row.version}"
            )


def development_kek(data_dir: Path) -> bytes:
    """Give the development key-encryption key, made at the first call."""
    path = data_dir / "kek"
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(fd, "wb") as file:
        file.write(secrets.token_bytes(32))
        file.flush()
        os.fsync(file.fileno())
    return path.read_bytes()
