"""Everything that knows which database this is."""
