"""What is usual, and what is to be expected: from the reports' counts, by kinds of days.

And whether anybody knows what is now (`live`), for which those counts are asked, too.
"""
