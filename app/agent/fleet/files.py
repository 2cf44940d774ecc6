"""How many files this process may open: every connection is one."""

try:
    import resource
except ImportError:  # Windows has no such limit.
    resource = None  # type: ignore[assignment]

MOST = 1_048_576
"""More is never asked for, also where the limit is infinite."""


def raise_file_limit() -> int:
    """Raise this process's limit to what the system allows; gives the limit that holds now."""
    if resource is None:
        return MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # Some systems allow less than they say.
            return soft
    return wanted
