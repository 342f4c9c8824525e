"""What the functions of PromQL mean, one window or one histogram at a time, slow and plain."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

Sample = tuple[int, float]
Samples = Sequence[Sample]


def window(samples: Samples, end_ms: int, range_ms: int) -> list[Sample]:
    """Samples in (end - range, end]."""
    return [(time, value) for time, value in samples if end_ms - range_ms < time <= end_ms]


def exact_sum(values: Sequence[float]) -> float:
    """The sum, rounded once; special values as in IEEE 754."""
    if not all(map(math.isfinite, values)):
        return sum(values)
    total = sum(map(Fraction, values), Fraction(0))
    try:
        return float(total)
    except OverflowError:
        return math.copysign(math.inf, total)


def increase(samples: Samples, end_ms: int, range_ms: int, *, counter: bool = True) -> float | None:
    inside = window(samples, end_ms, range_ms)
    if len(inside) < 2:
        return None
    (first_time, first), (last_time, last) = inside[0], inside[-1]
    total = last - first
    if counter:
        for (_, before), (_, after) in pairwise(inside):
            if after < before:
                total += before
    span = (last_time - first_time) / 1000
    average = span / (len(inside) - 1)
    before_first = (first_time - (end_ms - range_ms)) / 1000
    after_last = (end_ms - last_time) / 1000
    if before_first >= average * 1.1:
        before_first = average / 2
    if counter and total > 0 and first >= 0:
        before_first = min(before_first, span * (first / total))
    if after_last >= average * 1.1:
        after_last = average / 2
    return total * ((span + before_first + after_last) / span)


def delta(samples: Samples, end_ms: int, range_ms: int) -> float | None:
    return increase(samples, end_ms, range_ms, counter=False)


def rate(samples: Samples, end_ms: int, range_ms: int) -> float | None:
    total = increase(samples, end_ms, range_ms)
    return None if total is None else total / (range_ms / 1000)


def value_at(samples: Samples, time_ms: int, *, counter: bool) -> float:
    """By interpolation; the nearest value outside the samples."""
    before = [sample for sample in samples if sample[0] <= time_ms]
    after = [sample for sample in samples if sample[0] >= time_ms]
    if not before or not after:
        return (before or after)[-1 if before else 0][1]
    (time_0, value_0), (time_1, value_1) = before[-1], after[0]
    if time_0 == time_1:
        return value_0
    if counter and value_1 < value_0:
        value_0 = 0.0
    return value_0 + (value_1 - value_0) * (time_ms - time_0) / (time_1 - time_0)


def _with_resets(values: Sequence[float]) -> float:
    return values[-1] - values[0] + sum(a for a, b in pairwise(values) if b < a)


def anchored_increase(samples: Samples, end_ms: int, range_ms: int, lookback_ms: int) -> float | None:
    """From the last sample at or before the left edge to the last one in the window."""
    inside = window(samples, end_ms, range_ms)
    anchor = window(samples, end_ms - range_ms, lookback_ms)[-1:]
    return _with_resets([value for _, value in anchor + inside]) if inside else None


def smoothed_increase(samples: Samples, end_ms: int, range_ms: int, lookback_ms: int) -> float | None:
    """Between the interpolated values at the edges; a series that starts or ends within is not extended."""
    seen = window(samples, end_ms + lookback_ms, range_ms + 2 * lookback_ms)
    begin_ms = end_ms - range_ms
    if not seen or seen[-1][0] <= begin_ms or seen[0][0] > end_ms:
        return None
    between = [value for time, value in seen if begin_ms < time < end_ms]
    edges = [value_at(seen, time, counter=True) for time in (begin_ms, end_ms)]
    return _with_resets([edges[0], *between, edges[1]])


def irate(samples: Samples, end_ms: int, range_ms: int) -> float | None:
    inside = window(samples, end_ms, range_ms)[-2:]
    if len(inside) < 2:
        return None
    (time_0, value_0), (time_1, value_1) = inside
    return (value_1 if value_1 < value_0 else value_1 - value_0) / ((time_1 - time_0) / 1000)


def idelta(samples: Samples, end_ms: int, range_ms: int) -> float | None:
    inside = window(samples, end_ms, range_ms)[-2:]
    return inside[1][1] - inside[0][1] if len(inside) == 2 else None


def resets(samples: Samples, end_ms: int, range_ms: int) -> float | None:
    values = [value for _, value in window(samples, end_ms, range_ms)]
    return float(sum(b < a for a, b in pairwise(values))) if values else None


def changes(samples: Samples, end_ms: int, range_ms: int) -> float | None:
    values = [value for _, value in window(samples, end_ms, range_ms)]
    pairs = pairwise(values)
    return float(sum(a != b and not (a != a and b != b) for a, b in pairs)) if values else None


def _mean(values: Sequence[float]) -> float:
    if not all(map(math.isfinite, values)):
        return sum(values)
    return float(sum(map(Fraction, values), Fraction(0)) / len(values))


def _variance(values: Sequence[float]) -> float:
    if not all(map(math.isfinite, values)):
        return math.nan
    exact = [Fraction(value) for value in values]
    mean = sum(exact, Fraction(0)) / len(exact)
    return float(sum(((value - mean) ** 2 for value in exact), Fraction(0)) / len(exact))


def _extremum(values: Sequence[float], choose: Callable[[list[float]], float]) -> float:
    numbers = [value for value in values if value == value]
    return choose(numbers) if numbers else math.nan


def quantile(q: float, values: Sequence[float]) -> float:
    if q != q:
        return math.nan
    if not 0 <= q <= 1:
        return math.inf if q > 1 else -math.inf
    ordered = sorted(values, key=lambda value: (value == value, value))
    rank = q * (len(ordered) - 1)
    below = math.floor(rank)
    weight = rank - below
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] * (1 - weight) + ordered[above] * weight


def _median_deviation(values: Sequence[float]) -> float:
    if any(value != value for value in values):
        return math.nan
    median = quantile(0.5, values)
    return quantile(0.5, [abs(value - median) for value in values])


STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "sum_over_time": exact_sum,
    "avg_over_time": _mean,
    "count_over_time": lambda values: float(len(values)),
    "present_over_time": lambda values: 1.0,
    "last_over_time": lambda values: values[-1],
    "first_over_time": lambda values: values[0],
    "min_over_time": lambda values: _extremum(values, min),
    "max_over_time": lambda values: _extremum(values, max),
    "stdvar_over_time": _variance,
    "stddev_over_time": lambda values: math.sqrt(_variance(values)),
    "mad_over_time": _median_deviation,
}
DIFFERENCES: dict[str, Callable[[Samples, int, int], float | None]] = {
    "rate": rate,
    "increase": increase,
    "delta": delta,
    "irate": irate,
    "idelta": idelta,
    "resets": resets,
    "changes": changes,
}


def time_of(name: str, inside: Samples) -> float:
    """ts_of_*_over_time of a window that is not empty."""
    if name == "ts_of_first_over_time":
        return inside[0][0] / 1000
    if name == "ts_of_last_over_time":
        return inside[-1][0] / 1000
    numbers = [(value, time) for time, value in inside if value == value]
    if not numbers:
        return inside[-1][0] / 1000
    extremum = (min if name == "ts_of_min_over_time" else max)(value for value, _ in numbers)
    return max(time for value, time in numbers if value == extremum) / 1000


def line(inside: Samples, origin_ms: int) -> tuple[float, float]:
    """Least squares: slope per second and value at the origin, exactly; for finite values."""
    values = [value for _, value in inside]
    if all(value == values[0] for value in values):
        return 0.0, values[0]
    xs = [Fraction(time - origin_ms, 1000) for time, _ in inside]
    ys = [Fraction(value) for value in values]
    n = len(inside)
    mean_x, mean_y = sum(xs, Fraction(0)) / n, sum(ys, Fraction(0)) / n
    slope = sum(((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)), Fraction(0)) / sum(
        ((x - mean_x) ** 2 for x in xs), Fraction(0)
    )
    return float(slope), float(mean_y - slope * mean_x)


def smoothing(values: Sequence[float], level_factor: float, trend_factor: float) -> float:
    """Holt's linear method, as its recurrence reads."""
    level, trend = values[0], values[1] - values[0]
    for value in values[1:]:
        new_level = level_factor * value + (1 - level_factor) * (level + trend)
        trend = trend_factor * (new_level - level) + (1 - trend_factor) * trend
        level = new_level
    return level


def _cumulative(buckets: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: dict[float, float] = {}
    for bound, count in sorted(buckets):
        merged[bound] = merged.get(bound, 0.0) + count
    return list(merged.items())


def histogram_quantile(q: float, buckets: Sequence[tuple[float, float]]) -> float:
    """Quantile of a classic histogram given as (upper bound, cumulative count)."""
    if q != q:
        return math.nan
    if not 0 <= q <= 1:
        return math.inf if q > 1 else -math.inf
    merged = _cumulative(buckets)
    if merged[-1][0] != math.inf or len(merged) < 2:
        return math.nan
    counts: list[float] = []
    for _, count in merged:
        counts.append(max([count, *counts]))
    bounds = [bound for bound, _ in merged]
    if counts[-1] == 0:
        return math.nan
    rank = q * counts[-1]
    chosen = next(i for i, count in enumerate(counts) if count >= rank)
    if chosen == len(bounds) - 1:
        return bounds[-2]
    if chosen == 0 and bounds[0] <= 0:
        return bounds[0]
    low = bounds[chosen - 1] if chosen else 0.0
    below = counts[chosen - 1] if chosen else 0.0
    if counts[chosen] == below:
        return math.nan  # The lowest value of a histogram whose lowest bucket is empty.
    return low + (bounds[chosen] - low) * ((rank - below) / (counts[chosen] - below))


def histogram_fraction(lower: float, upper: float, buckets: Sequence[tuple[float, float]]) -> float:
    """Share of a classic histogram's observations between two values; counts must not descend."""
    merged = _cumulative(buckets)
    total = merged[-1][1]
    if merged[-1][0] != math.inf or total == 0 or lower != lower or upper != upper:
        return math.nan
    if lower >= upper:
        return 0.0

    def below(at: float) -> float:
        low = 0.0 if merged[0][0] > 0 else -math.inf
        rank = 0.0
        for bound, count in merged:
            if at <= low:
                return rank
            if at < bound:
                share = 1.0 if low == -math.inf else 0.0 if bound == math.inf else (at - low) / (bound - low)
                return rank + (count - rank) * share
            low, rank = bound, count
        return total

    return (below(upper) - below(lower)) / total
