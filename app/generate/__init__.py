"""A believable city: months of history by seed, in the real tables, for benchmarks and demos.

`plan` says how much, `city` makes the places and the people, `timetable` says when which mode
holds, `crowd` who wants to go where on one day, `day` what became of it, and `history` writes it
all down.
"""
