"""The window and histogram kernels against their oracles: random series with gaps, resets and special values."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.promql.ast import MatrixSelector, VectorSelector
from tests.oracles import functions as oracle
from tests.unit.query.functions.build import call, cells, context, range_vector, run, vector

INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT") == "1"
SETTINGS = settings(deadline=None, max_examples=8 if INTERPRETED else 30)

special = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-300, 1e15])
counts = st.integers(0, 40).map(float)
decimals = st.integers(-10_000, 10_000).map(lambda n: n / 100)
finite = counts | decimals
anything = finite | special


@st.composite
def series(draw, values=anything, max_size=40):
    """Samples at odd distances, some of them far apart."""
    steps = draw(st.lists(st.integers(1, 40) | st.integers(100, 400), max_size=max_size))
    times = np.cumsum([0, *steps]).tolist()
    return [(time * 100, draw(values)) for time in times]


@st.composite
def windows(draw):
    """Ends that never descend, and a range."""
    start = draw(st.integers(-20, 100))
    gaps = draw(st.lists(st.integers(0, 60), max_size=8))
    return (np.cumsum([start, *gaps]) * 100).tolist(), draw(st.integers(1, 300)) * 50


def agree(expected: float | None, actual: float | None, scale: float = 0.0) -> None:
    assert (expected is None) == (actual is None), (expected, actual)
    if expected is None or actual is None:
        return
    if math.isnan(expected) or math.isnan(actual):
        assert math.isnan(expected), (expected, actual)
        assert math.isnan(actual), (expected, actual)
    elif math.isinf(expected) or math.isinf(actual):
        assert expected == actual
    else:
        assert abs(expected - actual) <= 1e-12 * max(abs(expected), abs(actual), scale), (expected, actual)


def scale_of(*series: list[tuple[int, float]]) -> float:
    return max((abs(v) for samples in series for _, v in samples if math.isfinite(v)), default=0.0)


@pytest.mark.parametrize("name", sorted(oracle.DIFFERENCES))
@SETTINGS
@given(data=st.data())
def test_differences_agree_with_the_documented_rules(name, data):
    a, b = data.draw(series()), data.draw(series(counts))
    ends, range_ms = data.draw(windows())
    result = cells(run(name, range_vector([({"s": "a"}, a), ({"s": "b"}, b)], ends, range_ms), at=context(ends)))
    for samples, row in zip((a, b), result, strict=True):
        for end, actual in zip(ends, row, strict=True):
            agree(oracle.DIFFERENCES[name](samples, end, range_ms), actual)


@pytest.mark.parametrize("mode", ["anchored", "smoothed"])
@SETTINGS
@given(samples=series(finite), where=windows())
def test_extended_windows_end_at_their_edges(mode, samples, where):
    ends, range_ms = where
    selector = MatrixSelector(VectorSelector("x", (), extended=mode), range_ms)
    argument = range_vector([({}, samples)], ends, range_ms)
    at = replace(context(ends), lookback_ms=2000)
    (row,) = cells(run("increase", argument, at=at, written=call("increase", selector)))
    expected = oracle.anchored_increase if mode == "anchored" else oracle.smoothed_increase
    for end, actual in zip(ends, row, strict=True):
        agree(expected(samples, end, range_ms, 2000), actual, scale_of(samples))


@pytest.mark.parametrize("name", sorted(oracle.STATISTICS))
@SETTINGS
@given(data=st.data())
def test_statistics_agree_with_exact_arithmetic(name, data):
    a, b = data.draw(series()), data.draw(series(finite))
    ends, range_ms = data.draw(windows())
    result = cells(run(name, range_vector([({"s": "a"}, a), ({"s": "b"}, b)], ends, range_ms), at=context(ends)))
    for samples, row in zip((a, b), result, strict=True):
        for end, actual in zip(ends, row, strict=True):
            inside = [value for _, value in oracle.window(samples, end, range_ms)]
            agree(oracle.STATISTICS[name](inside) if inside else None, actual, 1e-3)


@pytest.mark.parametrize("which", ["first", "last", "min", "max"])
@SETTINGS
@given(samples=series(), where=windows())
def test_times_are_those_of_the_samples_they_speak_of(which, samples, where):
    ends, range_ms = where
    name = f"ts_of_{which}_over_time"
    (row,) = cells(run(name, range_vector([({}, samples)], ends, range_ms), at=context(ends)))
    for end, actual in zip(ends, row, strict=True):
        inside = oracle.window(samples, end, range_ms)
        agree(oracle.time_of(name, inside) if inside else None, actual)


@SETTINGS
@given(samples=series(), where=windows(), q=st.sampled_from([0.0, 0.25, 0.5, 0.99, 1.0, -0.1, 1.1, math.nan]))
def test_quantiles_lie_between_neighbours_in_order(samples, where, q):
    ends, range_ms = where
    argument = range_vector([({}, samples)], ends, range_ms)
    (row,) = cells(run("quantile_over_time", q, argument, at=context(ends)))
    for end, actual in zip(ends, row, strict=True):
        inside = [value for _, value in oracle.window(samples, end, range_ms)]
        agree(oracle.quantile(q, inside) if inside else None, actual)


@SETTINGS
@given(samples=series(finite), where=windows(), ahead=st.integers(-100, 1000))
def test_a_line_is_fitted_as_exact_arithmetic_fits_it(samples, where, ahead):
    ends, range_ms = where
    argument = range_vector([({}, samples)], ends, range_ms)
    (slopes,) = cells(run("deriv", argument, at=context(ends)))
    (levels,) = cells(run("predict_linear", argument, ahead, at=context(ends)))
    for end, slope, level in zip(ends, slopes, levels, strict=True):
        inside = oracle.window(samples, end, range_ms)
        if len(inside) < 2:
            assert slope is None
            assert level is None
            continue
        # Products of differences lose digits: 1e-12 of the values as they go in, not of what is left of them.
        scale = 1e3 * scale_of(inside)
        agree(oracle.line(inside, inside[0][0])[0], slope, scale)
        agree(sum(oracle.line(inside, end)[i] * (ahead, 1)[i] for i in (0, 1)), level, scale * (1 + abs(ahead)))


@SETTINGS
@given(samples=series(), where=windows(), sf=st.floats(0.01, 0.99), tf=st.floats(0.01, 0.99))
def test_smoothing_follows_its_recurrence(samples, where, sf, tf):
    ends, range_ms = where
    argument = range_vector([({}, samples)], ends, range_ms)
    (row,) = cells(run("double_exponential_smoothing", argument, sf, tf, at=context(ends)))
    for end, actual in zip(ends, row, strict=True):
        inside = [value for _, value in oracle.window(samples, end, range_ms)]
        expected = oracle.smoothing(inside, sf, tf) if len(inside) > 1 else None
        agree(expected, actual, scale_of(samples))


@st.composite
def buckets(draw, *, monotonic):
    bounds = draw(st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.1, 0.5, 1.0, 2.5, 10.0]), max_size=7))
    if monotonic:
        bounds = sorted(set(bounds))
    if monotonic or not bounds or draw(st.booleans()):
        bounds.append(math.inf)
    heights = [draw(st.integers(0, 9)) for _ in bounds]
    if monotonic:
        heights = np.cumsum(heights).tolist()
    return [(bound, float(height)) for bound, height in zip(bounds, heights, strict=True)]


def bucket_series(buckets: list[tuple[float, float]], order: list[int]):
    """One series a bucket; equal bounds are spelled differently (0.5, 0.50, …)."""
    bounds = [bound for bound, _ in buckets]
    spelled = [f"{bound:+}" + "0" * bounds[:i].count(bound) for i, bound in enumerate(bounds)]
    return vector([({"le": spelled[i]}, [buckets[i][1]]) for i in order])


@SETTINGS
@given(data=st.data(), q=st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0, -1.0, 2.0, math.nan]))
def test_a_histograms_quantile_agrees_with_the_documented_rules(data, q):
    histogram = data.draw(buckets(monotonic=False))
    order = data.draw(st.permutations(range(len(histogram))))
    ((actual,),) = cells(run("histogram_quantile", q, bucket_series(histogram, order)))
    agree(oracle.histogram_quantile(q, histogram), actual)


@SETTINGS
@given(data=st.data())
def test_a_histograms_fraction_agrees_with_the_documented_rules(data):
    histogram = data.draw(buckets(monotonic=True))
    order = data.draw(st.permutations(range(len(histogram))))
    edge = st.sampled_from([-math.inf, -3.0, -0.5, 0.0, 0.05, 0.5, 2.0, 99.0, math.inf, math.nan])
    lower, upper = data.draw(edge), data.draw(edge)
    ((actual,),) = cells(run("histogram_fraction", lower, upper, bucket_series(histogram, order)))
    agree(oracle.histogram_fraction(lower, upper, histogram), actual, 1.0)


def test_the_kernels_say_the_same_as_plain_python():
    if INTERPRETED:
        return
    # Plain Python warns of what a kernel computes in silence (inf * 0).
    quiet = ("-W", "ignore::RuntimeWarning", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", "-q", "-x", *quiet, __file__]
    done = subprocess.run(
        command, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
