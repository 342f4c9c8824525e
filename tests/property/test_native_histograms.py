"""Native histograms as columns against one at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from common.errors import CorruptError
from common.histograms import CUSTOM_BOUNDS, concatenate, decode, empty, take
from query.engine.native import ops
from tests.oracles import native as oracle
from tests.oracles.histogram import NativeHistogram

SIDES = st.dictionaries(st.integers(-9, 9), st.integers(0, 9).map(float), max_size=6)


@st.composite
def exponential(draw: st.DrawFn, schemas: tuple[int, int] = (-1, 2)) -> NativeHistogram:
    threshold = draw(st.sampled_from([0.0, 0.001, 0.25, 0.5, 1.0]))
    schema = draw(st.integers(*schemas))
    positive, negative = (
        {i: n for i, n in draw(SIDES).items() if oracle.upper_bound(i - 1, schema) >= threshold} for _ in range(2)
    )
    zeros = float(draw(st.integers(0, 5)))
    count = sum(positive.values()) + sum(negative.values()) + zeros
    histogram = NativeHistogram(
        schema,
        count,
        float(draw(st.integers(-99, 99))),
        threshold,
        zeros,
        hint=draw(st.integers(0, 3)),
    )
    return oracle.with_buckets(histogram, positive, negative)


@st.composite
def custom(draw: st.DrawFn) -> NativeHistogram:
    bounds = tuple(sorted(draw(st.sets(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 4.0]), max_size=5))))
    positive = draw(st.dictionaries(st.integers(0, len(bounds)), st.integers(0, 9).map(float), max_size=6))
    histogram = NativeHistogram(
        CUSTOM_BOUNDS, sum(positive.values()), 1.0, bounds=bounds, hint=draw(st.integers(0, 3))
    )
    return oracle.with_buckets(histogram, positive, {})


QUICK = settings(deadline=None, max_examples=60)
HISTOGRAMS = st.one_of(exponential(), custom())


@QUICK
@given(st.lists(HISTOGRAMS, max_size=4))
def test_rows_are_what_their_bytes_say(histograms: list[NativeHistogram]) -> None:
    rows = decode(oracle.encoded(histograms))
    assert [oracle.row(rows, i) for i in range(len(rows))] == histograms


@QUICK
@given(HISTOGRAMS)
def test_integer_counts_are_read_as_floats_are(histogram: NativeHistogram) -> None:
    rows = decode(oracle.encoded([histogram, replace(histogram, is_float=False)]))
    assert oracle.row(rows, 1) == oracle.row(rows, 0)


@QUICK
@given(HISTOGRAMS, st.data())
def test_cut_or_changed_bytes_are_refused_or_read_but_never_run_over(
    histogram: NativeHistogram, data: st.DataObject
) -> None:
    whole = oracle.encoded([histogram])
    size = data.draw(st.integers(0, len(whole.data) - 1))
    with pytest.raises(CorruptError, match="histogram 0 of 1"):
        decode(replace(whole, offsets=np.array([0, size]), data=whole.data[:size].copy()))
    changed = whole.data.copy()
    changed[size] ^= data.draw(st.integers(1, 255))
    try:
        rows = decode(replace(whole, data=changed))
    except CorruptError:
        return
    assert len(rows.bucket_keys) <= len(changed)


@QUICK
@given(st.lists(HISTOGRAMS, min_size=1, max_size=4), st.lists(st.integers(0, 3), max_size=6))
def test_rows_are_taken_and_joined(histograms: list[NativeHistogram], picks: list[int]) -> None:
    rows = decode(oracle.encoded(histograms))
    chosen = np.array([pick % len(rows) for pick in picks], dtype=np.int64)
    both = concatenate([take(rows, chosen), empty(), rows])
    expected = [histograms[i] for i in chosen.tolist()] + histograms
    assert [oracle.row(both, i) for i in range(len(both))] == expected


@QUICK
@given(HISTOGRAMS, HISTOGRAMS, st.sampled_from([1.0, -1.0]))
def test_adding_reconciles_what_differs(a: NativeHistogram, b: NativeHistogram, sign: float) -> None:
    # Where a bucket of the coarser schema holds zero's border, Prometheus counts some twice; not for an oracle.
    assume(CUSTOM_BOUNDS in (a.schema, b.schema) or a.schema == b.schema or a.zero_threshold == b.zero_threshold)
    assume(a.schema == b.schema or max(a.zero_threshold, b.zero_threshold) < 0.01)
    expected = oracle.add(a, b, sign)
    result = ops.add(decode(oracle.encoded([a])), decode(oracle.encoded([b])), sign)
    assert result.incompatible.tolist() == [expected is None]
    if expected is not None:
        if sign < 0:
            expected = replace(expected, hint=oracle.GAUGE)
        assert oracle.row(result.rows, 0) == expected
        assert result.bounds_reconciled.tolist() == [a.bounds != b.bounds]
        assert result.hint_clash.tolist() == [{a.hint, b.hint} == {oracle.RESET, oracle.NOT_RESET}]


@QUICK
@given(st.lists(st.tuples(exponential((0, 0)), st.integers(0, 2)), min_size=1, max_size=8), st.booleans())
def test_groups_are_summed_in_order(members: list[tuple[NativeHistogram, int]], mean: bool) -> None:
    groups = np.array([group for _, group in members], dtype=np.int32)
    rows = decode(oracle.encoded([histogram for histogram, _ in members]))
    result = ops.sum_groups(rows, groups, 3, mean=mean).rows
    for group in range(3):
        total, n = None, 0
        for histogram, own in members:
            if own == group:
                total = histogram if total is None else oracle.add(total, histogram)
                n += 1
        expected = NativeHistogram() if total is None else total
        one = oracle.row(result, group)
        if mean and n:
            assert one.count == pytest.approx(expected.count / n)
            assert one.positive == pytest.approx([count / n for count in expected.positive])
        else:
            assert one == expected


def test_a_mean_of_sums_that_are_too_large_is_finite() -> None:
    large = NativeHistogram(0, 1.0, 1.5e308, 0.0, 0.0, ((1, 1),), (1.0,))
    rows = decode(oracle.encoded([large, large, large]))
    result = ops.sum_groups(rows, np.zeros(3, dtype=np.int32), 1, mean=True).rows
    assert result.sums.tolist() == pytest.approx([1.5e308])
    assert result.counts.tolist() == pytest.approx([1.0])


@QUICK
@given(HISTOGRAMS, HISTOGRAMS)
def test_equal_rows_are_the_same_data_but_for_hints(a: NativeHistogram, b: NativeHistogram) -> None:
    rows = decode(oracle.encoded([a, b]))
    other = decode(oracle.encoded([replace(a, hint=0), replace(a, hint=1)]))
    assert ops.equal(rows, other).tolist() == [True, replace(a, hint=0) == replace(b, hint=0)]


@QUICK
@given(HISTOGRAMS, st.sampled_from([2.0, -1.0, 0.5]))
def test_scaling_keeps_buckets_and_a_negative_factor_makes_a_gauge(a: NativeHistogram, factor: float) -> None:
    rows = decode(oracle.encoded([a]))
    for result in (ops.scale(rows, np.array([factor])), ops.divide(rows, np.array([1 / factor]))):
        assert result.hints.tolist() == [oracle.GAUGE if factor < 0 else a.hint]
        assert result.bucket_keys.tolist() == rows.bucket_keys.tolist()
        assert result.bucket_counts.tolist() == (rows.bucket_counts * factor).tolist()
        assert result.sums.tolist() == [a.sum * factor]


def test_division_by_zero_takes_the_buckets_away() -> None:
    rows = decode(oracle.encoded([NativeHistogram(0, 2.0, 0.0, 0.0, 1.0, ((1, 1),), (1.0,))] * 2))
    result = ops.divide(rows, np.array([0.0, 2.0]))
    assert np.diff(result.bucket_offsets).tolist() == [0, 1]
    assert result.counts.tolist() == [np.inf, 1.0]
    assert np.isnan(result.sums[0])


def test_buckets_are_listed_by_value_with_their_rules() -> None:
    exponential_ = NativeHistogram(0, 9.0, 1.0, 0.75, 1.0, ((0, 2),), (2.0, 3.0), ((1, 1),), (3.0,))
    custom_ = NativeHistogram(
        CUSTOM_BOUNDS, 3.0, 1.0, positive_spans=((0, 3),), positive=(1.0, 0.0, 2.0), bounds=(1.0, 2.0)
    )
    offsets, rules, lower, upper, counts = ops.buckets(decode(oracle.encoded([exponential_, custom_])))
    assert offsets.tolist() == [0, 4, 6]
    assert rules.tolist() == [1, 3, 0, 0, 3, 0]
    assert lower.tolist() == [-2.0, -0.75, 0.75, 1.0, -np.inf, 2.0]
    assert upper.tolist() == [-1.0, 0.75, 1.0, 2.0, 1.0, np.inf]
    assert counts.tolist() == [3.0, 1.0, 2.0, 3.0, 1.0, 2.0]


@QUICK
@given(HISTOGRAMS, st.sampled_from([-3.0, -1.0, 0.0, 0.3, 1.0, 2.5, 100.0]), st.booleans())
def test_what_is_trimmed_off_lies_beyond_the_limit(a: NativeHistogram, limit: float, upper: bool) -> None:
    rows = decode(oracle.encoded([a]))
    result = ops.trim(rows, np.array([limit]), upper=upper)
    _, _, lows, highs, _ = ops.buckets(result)
    finite = np.isfinite(lows) & np.isfinite(highs) & (lows < highs)
    beyond = lows >= limit if upper else highs <= limit
    assert not (beyond & finite).any()
    assert result.bucket_counts.sum() + result.zero_counts.sum() == pytest.approx(result.counts.sum())
    assert rows.bucket_counts.tolist() == decode(oracle.encoded([a])).bucket_counts.tolist()
