"""HTTP for workers: the phone page and any app that does what it does."""
