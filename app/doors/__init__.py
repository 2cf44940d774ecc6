"""Doors: a scan becomes a decision, a decision an unlock command, a command one relay pulse."""
