"""What is usual, and what is to be expected: from the reports' counts, by kinds of days."""
