"""Reports: what happened, counted."""
