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
def extrapolated(op, difference, first_value, to_start_ms, to_end_ms, sampled_ms, gaps, range_s):
    """Stretch the difference between the first and last sample over the whole window."""
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
    return difference * factor


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
