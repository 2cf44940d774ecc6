"""Trials of the promises: real processes, killed, frozen, cut off and lied to, by seed.

`make faults` runs a short round, `make faults-full` all of it with the seeded bugs.
"""
