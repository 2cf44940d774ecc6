"""Visits: who is inside, and what they use."""
