"""Rows of the feed: what every process sends, whichever built it."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, closed_enum
from app.feed.rules import FeedFile, Part


class FeedEdition(Base):
    """For which period a part of the feed was built last."""

    __tablename__ = "feed_editions"

    part: Mapped[Part] = mapped_column(closed_enum(Part), primary_key=True)
    from_at: Mapped[datetime]
    """When the period began."""


class FeedText(Base):
    """What a file says; the row stays as it is for as long as it says that."""

    __tablename__ = "feed_texts"

    name: Mapped[FeedFile] = mapped_column(closed_enum(FeedFile), primary_key=True)
    part: Mapped[Part] = mapped_column(closed_enum(Part), sa.ForeignKey("feed_editions.part"))
    etag: Mapped[str]
    zipped: Mapped[bytes]
    """The whole file, by gzip."""
    updated_at: Mapped[datetime]
    """When it began to say this."""
