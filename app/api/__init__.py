"""HTTP, by audience; no rules and no SQL."""
