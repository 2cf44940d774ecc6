"""HTTP for controllers: poll, claim, acknowledge, config, journal.

Unknown fields are kept out of the way, not refused, so that newer firmware is never locked out.
"""
