"""Problems: what cannot be answered, as RFC 9457 describes it.

    Problem
    ├── Malformed     400  the request lacks something every such request needs
    ├── Unauthorized  401  nobody, or nobody we know
    ├── Forbidden     403  known, but the role does not do this
    ├── NotFound      404  not there, or outside the caller's scope
    ├── Conflict      409  the state of things forbids it
    ├── Gone          410  it was there, and its time is over
    ├── Invalid       422  understood, but not acceptable
    ├── TooMany       429  a limit; `retry_after_s` says when to come back
    └── Unavailable   503  not now

A concrete problem is declared above the operation that raises it. Its first docstring line is the
title; the class name gives `type` and `code` and never changes once released.
"""

import re
from typing import Any, ClassVar


class Problem(Exception):
    """Something went wrong."""

    status: ClassVar[int] = 500

    def __init__(self, detail: str | None = None, **extensions: Any) -> None:
        self.detail = detail or self.title()
        self.extensions = extensions
        super().__init__(self.detail)

    @classmethod
    def slug(cls) -> str:
        """Give the class name in kebab-case."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    @classmethod
    def code(cls) -> str:
        """Give the class name in snake_case."""
        return cls.slug().replace("-", "_")

    @classmethod
    def title(cls) -> str:
        """Give the first line of the docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0]


class Malformed(Problem):
    """The request lacks something it needs."""

    status = 400


class Unauthorized(Problem):
    """Please sign in."""

    status = 401


class Forbidden(Problem):
    """Your role does not allow this."""

    status = 403


class NotFound(Problem):
    """There is nothing here."""

    status = 404


class Conflict(Problem):
    """This cannot be done in the present state."""

    status = 409


class Gone(Problem):
    """The time for this is over."""

    status = 410


class Invalid(Problem):
    """The request is not acceptable.

    `errors` is a list of `{loc, message}`, one for each thing that is wrong.
    """

    status = 422

    def __init__(
        self, detail: str | None = None, *, errors: list[dict[str, Any]] | None = None, **more: Any
    ) -> None:
        if errors is not None:
            more["errors"] = errors
        super().__init__(detail, **more)


class RequestInvalid(Invalid):
    """The request is not acceptable."""


class TooMany(Problem):
    """Too many requests."""

    status = 429

    def __init__(self, detail: str | None = None, *, retry_after_s: int, **more: Any) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(detail, **more)


class Unavailable(Problem):
    """The service cannot answer just now."""

    status = 503
