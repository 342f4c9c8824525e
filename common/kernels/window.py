"""Differences over sliding windows: rate, increase, delta, irate, idelta, resets, changes (docs/glossary: window).

Samples are in compressed-sparse-row form; the window of step k is (ends[k] - range_ms, ends[k]] and `ends` never
descends, so that two indices slide over each series once. Counter resets are found as the samples enter the window
and kept as a list: a window looks at its own resets only, and adds them up in the order in which Prometheus does,
so that results are equal to the last bit.

Sources: rules of extrapolation in Prometheus' documentation of `rate` and `promql/functions.go` (extrapolatedRate,
extendedRate).
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import device, kernel

RATE, INCREASE, DELTA, IRATE, IDELTA, RESETS, CHANGES = range(7)
ANCHORED, SMOOTHED = range(2)

EXTRAPOLATION_THRESHOLD = 1.1
"""A gap to the window's edge of this many average intervals or more is not bridged."""


@device
def is_reset(before, after):
    return after < before


@device
def is_change(before, after):
    return after != before and not (np.isnan(before) and np.isnan(after))


@device
def stretched(op, difference, first_value, to_start_ms, to_end_ms, sampled_ms, gaps, range_s):
    """By what to multiply the difference between the first and last sample to have it of the whole window."""
    to_start = to_start_ms / 1000.0
    to_end = to_end_ms / 1000.0
    sampled = sampled_ms / 1000.0
    average = sampled / gaps
    threshold = average * EXTRAPOLATION_THRESHOLD
    if to_start >= threshold:
        to_start = average / 2.0
    if op != DELTA and difference > 0.0 and first_value >= 0.0:
        # A counter is not taken back beyond the time at which it would have been zero.
        to_start = min(to_start, sampled * (first_value / difference))
    if to_end >= threshold:
        to_end = average / 2.0
    factor = (sampled + to_start + to_end) / sampled
    if op == RATE:
        factor /= range_s
    return factor


@device
def extrapolated(op, difference, first_value, to_start_ms, to_end_ms, sampled_ms, gaps, range_s):
    """The difference, stretched over the whole window."""
    return difference * stretched(op, difference, first_value, to_start_ms, to_end_ms, sampled_ms, gaps, range_s)


@kernel(
    "void(int64, int64[::1], int64[::1], float64[::1], int64[::1], int64, float64, float64[:, ::1],"
    " boolean[:, ::1])"
)
def difference_over_windows(op, offsets, timestamps, values, ends, range_ms, range_s, out, present):
    """Fill `out` and `present` (n_series, n_steps) with one of the functions above.

    ends: int64 (n_steps,), ms, never descending. range_s: the range as Prometheus turns it into seconds.
    """
    longest = 0
    for row in range(out.shape[0]):
        longest = max(longest, offsets[row + 1] - offsets[row])
    events = np.empty(longest, np.int64)
    needed = 1 if op in (RESETS, CHANGES) else 2
    for row in range(out.shape[0]):
        stop = offsets[row + 1]
        low = high = offsets[row]
        n_events = first_event = 0
        for step in range(ends.shape[0]):
            end = ends[step]
            begin = end - range_ms
            while high < stop and timestamps[high] <= end:
                if high > offsets[row]:
                    before, after = values[high - 1], values[high]
                    if is_change(before, after) if op == CHANGES else is_reset(before, after):
                        events[n_events] = high
                        n_events += 1
                high += 1
            while low < high and timestamps[low] <= begin:
                low += 1
            # An event lies between two samples; both must be in the window.
            while first_event < n_events and events[first_event] <= low:
                first_event += 1
            if high - low < needed:
                present[row, step] = False
                out[row, step] = 0.0
                continue
            present[row, step] = True
            last = high - 1
            if op <= DELTA:
                difference = values[last] - values[low]
                if op != DELTA:
                    for event in range(first_event, n_events):
                        difference += values[events[event] - 1]
                out[row, step] = extrapolated(
                    op,
                    difference,
                    values[low],
                    timestamps[low] - begin,
                    end - timestamps[last],
                    timestamps[last] - timestamps[low],
                    last - low,
                    range_s,
                )
            elif op == IRATE:
                difference = values[last]
                if not is_reset(values[last - 1], values[last]):
                    difference -= values[last - 1]
                out[row, step] = difference / ((timestamps[last] - timestamps[last - 1]) / 1000.0)
            elif op == IDELTA:
                out[row, step] = values[last] - values[last - 1]
            else:
                out[row, step] = n_events - first_event


@device
def interpolated(timestamps, values, at, time_ms, counter):
    """Value at a time between the samples `at` and `at + 1`; a counter that was reset between starts from zero."""
    before, after = values[at], values[at + 1]
    if counter and is_reset(before, after):
        before = 0.0
    share_ms = float(time_ms - timestamps[at])
    return before + (after - before) * share_ms / float(timestamps[at + 1] - timestamps[at])


@device
def extended_difference(counter, smoothed, timestamps, values, first, last, begin, end):
    """Difference between the values at the window's edges, with the resets in between.

    first, last: samples at or beyond the edges, where there are such.
    """
    left, right = values[first], values[last]
    if smoothed and timestamps[first] < begin:
        left = interpolated(timestamps, values, first, begin, counter)
    if smoothed and last > 0 and timestamps[last] > end:
        right = interpolated(timestamps, values, last - 1, end, counter)
    difference = right - left
    if counter:
        # Resets at the edges are in the edges' values already.
        if timestamps[first] <= begin:
            first += 1
        if timestamps[last] >= end:
            last -= 1
        correction = 0.0
        previous = left
        for i in range(first, last + 1):
            if is_reset(previous, values[i]):
                correction += previous
            previous = values[i]
        if is_reset(previous, right):
            correction += previous
        difference += correction
    return difference


@kernel(
    "void(int64, int64, int64[::1], int64[::1], float64[::1], int64[::1], int64, int64, float64, float64[:, ::1],"
    " boolean[:, ::1])"
)
def extended_over_windows(
    op, mode, offsets, timestamps, values, ends, range_ms, lookback_ms, range_s, out, present
):
    """Fill `out` and `present` like difference_over_windows, without extrapolation.

    mode ANCHORED (RATE, INCREASE, DELTA, RESETS, CHANGES): a window begins with the last sample at or before its
    left edge, if that is less than lookback_ms before it. mode SMOOTHED (RATE, INCREASE, DELTA): the values at
    both edges are interpolated, with samples up to lookback_ms outside.
    """
    smoothed = mode == SMOOTHED
    after_ms = lookback_ms if smoothed else 0
    for row in range(out.shape[0]):
        stop = offsets[row + 1]
        low = inside = at_end = high = offsets[row]
        for step in range(ends.shape[0]):
            end = ends[step]
            begin = end - range_ms
            while high < stop and timestamps[high] <= end + after_ms:
                high += 1
            while low < high and timestamps[low] <= begin - lookback_ms:
                low += 1
            while inside < high and timestamps[inside] <= begin:
                inside += 1
            while at_end < high and timestamps[at_end] < end:
                at_end += 1
            first = max(low, inside - 1)
            last = min(at_end, high - 1) if smoothed else high - 1
            present[row, step] = inside < high and not (smoothed and timestamps[first] > end)
            out[row, step] = 0.0
            if not present[row, step]:
                continue
            if op <= DELTA:
                difference = extended_difference(
                    op != DELTA, smoothed, timestamps, values, first, last, begin, end
                )
                out[row, step] = difference / range_s if op == RATE else difference
            else:
                count = 0
                for i in range(first + 1, high):
                    before, after = values[i - 1], values[i]
                    count += is_change(before, after) if op == CHANGES else is_reset(before, after)
                out[row, step] = count
