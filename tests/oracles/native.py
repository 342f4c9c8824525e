"""Arithmetic of native histograms one at a time, with buckets as dicts; slow and plain."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np

from common.histograms import CUSTOM_BOUNDS, NEGATIVE, EncodedHistograms, Histograms
from tests.oracles.histogram import NativeHistogram

UNKNOWN, RESET, NOT_RESET, GAUGE = range(4)


def encoded(histograms: list[NativeHistogram]) -> EncodedHistograms:
    data = [histogram.encode() for histogram in histograms]
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in data]))).astype(np.int64)
    return EncodedHistograms(np.arange(len(data)), offsets, np.frombuffer(b"".join(data), dtype=np.uint8))


def row(histograms: Histograms, i: int) -> NativeHistogram:
    """Row i, with one span for each bucket that is not empty."""
    begin, end = histograms.bucket_offsets[i : i + 2]
    both = dict(zip(histograms.bucket_keys[begin:end].tolist(), histograms.bucket_counts[begin:end], strict=True))
    first, last = histograms.bound_offsets[i : i + 2]
    return with_buckets(
        NativeHistogram(
            int(histograms.schemas[i]),
            float(histograms.counts[i]),
            float(histograms.sums[i]),
            float(histograms.zero_thresholds[i]),
            float(histograms.zero_counts[i]),
            bounds=tuple(histograms.bounds[first:last].tolist()),
            hint=int(histograms.hints[i]),
        ),
        {key: float(count) for key, count in both.items() if key > NEGATIVE // 2},
        {key - NEGATIVE: float(count) for key, count in both.items() if key < NEGATIVE // 2},
    )


def with_buckets(
    histogram: NativeHistogram, positive: dict[int, float], negative: dict[int, float]
) -> NativeHistogram:
    sides = []
    for side in (positive, negative):
        side = {index: count for index, count in sorted(side.items()) if count}
        spans, end = [], 0
        for index in side:
            spans.append((index - end, 1))
            end = index + 1
        sides += [tuple(spans), tuple(side.values())]
    return replace(
        histogram, positive_spans=sides[0], positive=sides[1], negative_spans=sides[2], negative=sides[3]
    )


def normal(histogram: NativeHistogram) -> NativeHistogram:
    """In the form that `row` gives."""
    return with_buckets(replace(histogram, is_float=True), histogram.buckets(), histogram.buckets(negative=True))


def upper_bound(index: int, schema: int) -> float:
    try:
        return 2.0 ** (index * 2.0**-schema)
    except OverflowError:
        return math.inf


def _widened(histogram: NativeHistogram, threshold: float) -> tuple[float, float]:
    """(threshold, zero count) of a wider zero bucket that cuts no bucket."""
    while True:
        count = histogram.zero_count
        cut = None
        for negative in (False, True):
            for index, n in histogram.buckets(negative).items():
                if upper_bound(index - 1, histogram.schema) < threshold:
                    count += n
                    if n and upper_bound(index, histogram.schema) > threshold:
                        cut = upper_bound(index, histogram.schema)
        if cut is None:
            return threshold, count
        threshold = cut


def add(a: NativeHistogram, b: NativeHistogram, sign: float = 1.0) -> NativeHistogram | None:
    """a + sign * b; None where their buckets cannot be compared. Hints are those of a sum."""
    if (a.schema == CUSTOM_BOUNDS) != (b.schema == CUSTOM_BOUNDS):
        return None
    if a.hint == b.hint:
        hint = a.hint
    else:
        hint = GAUGE if GAUGE in (a.hint, b.hint) else UNKNOWN
    total = replace(a, hint=hint, count=a.count + sign * b.count, sum=a.sum + sign * b.sum, is_float=True)
    if a.schema == CUSTOM_BOUNDS:
        bounds = tuple(bound for bound in a.bounds if bound in b.bounds)
        out: dict[int, float] = {}
        for histogram, factor in ((a, 1.0), (b, sign)):
            for index, count in histogram.buckets().items():
                end = histogram.bounds[index] if index < len(histogram.bounds) else math.inf
                target = sum(bound < end for bound in bounds)
                out[target] = out.get(target, 0.0) + factor * count
        return with_buckets(replace(total, bounds=bounds), out, {})
    threshold = max(a.zero_threshold, b.zero_threshold)
    while True:
        wide_a = _widened(a, threshold) if threshold > a.zero_threshold else (threshold, a.zero_count)
        wide_b = _widened(b, threshold) if threshold > b.zero_threshold else (threshold, b.zero_count)
        if wide_a[0] == wide_b[0] == threshold:
            break
        threshold = max(wide_a[0], wide_b[0])
    schema = min(a.schema, b.schema)
    sides = []
    for negative in (False, True):
        side: dict[int, float] = {}
        for histogram, factor in ((a, 1.0), (b, sign)):
            for index, count in histogram.buckets(negative).items():
                if upper_bound(index - 1, histogram.schema) >= threshold:
                    target = ((index - 1) >> (histogram.schema - schema)) + 1
                    side[target] = side.get(target, 0.0) + factor * count
        sides.append(side)
    zeros = wide_a[1] + sign * wide_b[1]
    return with_buckets(
        replace(total, schema=schema, zero_threshold=threshold, zero_count=zeros), sides[0], sides[1]
    )


def is_reset(before: NativeHistogram, after: NativeHistogram) -> bool:
    """Whether a counter of equal resolution and zero threshold, exponential, was reset."""
    if after.hint in (RESET, NOT_RESET):
        return after.hint == RESET
    if after.count < before.count or after.zero_count < before.zero_count:
        return True
    return any(
        count > after.buckets(negative).get(index, 0.0)
        for negative in (False, True)
        for index, count in before.buckets(negative).items()
    )


def increase(samples: list[NativeHistogram]) -> NativeHistogram:
    """What was counted between the first and the last sample, resets added; of equal resolution."""
    first = samples[0]
    if is_reset(first, samples[1]):
        first = NativeHistogram(samples[1].schema, zero_threshold=samples[1].zero_threshold)
    total = add(samples[-1], first, -1.0)
    for before, after in pairwise(samples[1:]):
        if is_reset(before, after):
            assert total is not None
            total = add(total, before)
    assert total is not None
    return replace(total, hint=GAUGE)
