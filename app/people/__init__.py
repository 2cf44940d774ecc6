"""People: workers and administrators."""
