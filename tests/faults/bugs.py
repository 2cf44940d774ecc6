"""The seeded bugs: each patches the product in its process, and breaks one promise."""

from collections.abc import Callable

BUGS: dict[str, Callable[[], None]] = {}


def bug(patch: Callable[[], None]) -> Callable[[], None]:
    """Enter a patch under its name."""
    BUGS[patch.__name__] = patch
    return patch


from tests.faults import agent_bugs, server_bugs  # noqa: E402, F401  # They enter themselves.
