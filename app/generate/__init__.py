"""A believable city: months of history by seed, in the real tables, for benchmarks and demos.

`plan` says how much, `founding` draws a `city` with its places and people, `timetable` says when
which mode holds, `crowd` who wants to go where on one day, `day` what became of it (`events`) and
`rows` what is left of that in the tables; `history` writes it all down.
"""
