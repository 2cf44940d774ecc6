"""The public feed: what every app may show of all stations, in the manner of GBFS 3.0.

No head count is in it, and no number of places either: of a small station, level and places
together would tell how many persons are inside (law 15). Where nobody knows how full a station is,
it has no level (law 16).
"""
