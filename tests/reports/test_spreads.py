"""Percentiles are by nearest rank, and those that are kept are those of the histograms."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.reports import spreads, vectors
from app.reports.rules.counters import DECIDE, DWELL, HISTOGRAMS, SPREAD, C, F, facility, repairs
from app.reports.vectors import Table

LISTS = st.lists(st.lists(st.integers(0, 63), max_size=30), min_size=1, max_size=4)
EVERY = [(0, 1 << 20)]


def table_of(rows: list[list[int]], begins: int) -> Table:
    """Values below 64 are their own buckets."""
    packed = [vectors.packed(Counter(begins + value for value in row)) for row in rows]
    return vectors.summed(packed, range(len(rows)), len(rows), EVERY)


@given(LISTS)
def test_percentiles_are_by_nearest_rank(rows: list[list[int]]) -> None:
    known = np.ones(len(rows), bool)
    found = spreads.percentiles(spreads.buckets(table_of(rows, DECIDE), DECIDE), known)
    for percent, column in zip((50, 95, 99), found, strict=True):
        wanted = [sorted(row)[-(-percent * len(row) // 100) - 1] if row else None for row in rows]
        assert column == wanted


def test_what_is_not_known_has_none() -> None:
    found = spreads.buckets(table_of([[3], [5], []], DWELL), DWELL)
    known = np.array([True, False, True])
    assert spreads.percentiles(found, known, times=60) == [[180, None, None]] * 2


KEYS = st.one_of(
    st.sampled_from(
        [C.VISITS_SCAN, C.DWELLS, facility("water", F.REPAIRS), facility("rest", F.REPAIRS)]
    ),
    st.sampled_from(spreads.SPREADS).flatmap(
        lambda spread: st.integers(spread.begins, spread.begins + spread.length - 1)
    ),
)


@given(st.lists(st.dictionaries(KEYS, st.integers(1, 5), max_size=12), max_size=5))
def test_what_is_kept_of_sums_is_what_their_histograms_say(rows: list[dict[int, int]]) -> None:
    packed = [vectors.packed(row) for row in rows]
    written = spreads.written(packed)
    assert [one["counts"] + one["histograms"] for one in written] == packed
    for one in written:
        assert all(key < HISTOGRAMS for key in vectors.unpacked(one["counts"]))
        assert all(key >= HISTOGRAMS for key in vectors.unpacked(one["histograms"]))
    # In another order, and with a row of which nothing was counted.
    places = [len(rows) - number for number in range(len(rows))]
    kept = spreads.read([one["percentiles"] for one in written], places, len(rows) + 1)
    table = vectors.summed(packed, places, len(rows) + 1, EVERY)
    for spread in spreads.SPREADS:
        wanted = spreads.buckets(table, spread.begins)
        assert spreads.of(kept, spread.begins).tolist() == wanted.tolist()


def test_a_median_of_repairs_is_of_all_that_ended() -> None:
    begins, repaired = repairs("water"), facility("water", F.REPAIRS)
    rows = [{begins + 7: 2, repaired: 2}, {begins + 7: 2, repaired: 3}]
    table = vectors.summed([vectors.packed(row) for row in rows], range(2), 2, EVERY)
    assert spreads.buckets(table, begins).tolist() == [[7, spreads.NONE]]


def test_only_what_this_version_keeps_is_read_as_kept() -> None:
    (row,) = spreads.written([b""])
    kept, none = row["percentiles"], table_of([[]], DWELL)
    assert spreads.are_all_kept([kept], none)
    assert not spreads.are_all_kept([kept, b"\0\0" + kept[2:]], none)
    assert not spreads.are_all_kept([None], none)
    # Another version has written the row since: its histograms are among the counters again.
    assert not spreads.are_all_kept([kept], table_of([[5]], DWELL))


def test_every_bucket_has_a_number_that_can_be_kept() -> None:
    assert np.iinfo(np.int16).max >= SPREAD
    assert all(spread.length <= SPREAD for spread in spreads.SPREADS)
