"""Tests of what knows which database this is."""
