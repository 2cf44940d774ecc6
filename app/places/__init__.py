"""Places: union units and districts, stations, their hours and facilities."""
