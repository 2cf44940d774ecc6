"""Tests of doors: codes, decisions, commands, controllers."""
