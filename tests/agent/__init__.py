"""Tests of the agent at the door."""
