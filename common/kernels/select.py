"""From samples to the columns of an instant vector."""

from __future__ import annotations

from common.kernels.jit import kernel

STALE_BITS = 0x7FF0000000000002
"""`common.store.STALE_NAN_BITS`, here so that kernels see a constant of their own module."""


@kernel("void(int64[::1], int64[::1], int64[::1], int64[::1], int64, boolean, int64[:, ::1], boolean[:, ::1])")
def look_back(offsets, timestamps, bits, ends, lookback_ms, want_times, out, present):
    """Latest sample of each series in (end - lookback_ms, end], for every end.

    offsets: (n_series + 1,) into timestamps and bits; the bits are those of the float64 values.
    ends: (n_steps,), ascending. out: (n_series, n_steps), the bits of the value, or with `want_times` the
    sample's timestamp; untouched where there is no sample or it is a stale marker. present: all written.
    """
    for i in range(len(offsets) - 1):
        start = offsets[i]
        stop = offsets[i + 1]
        at = start - 1
        for k in range(len(ends)):
            end = ends[k]
            while at + 1 < stop and timestamps[at + 1] <= end:
                at += 1
            found = at >= start and timestamps[at] > end - lookback_ms and bits[at] != STALE_BITS
            present[i, k] = found
            if found:
                out[i, k] = timestamps[at] if want_times else bits[at]


@kernel(
    "void(int64[::1], int64[::1], float64[::1], int64[::1], int64, float64[:, ::1], boolean[:, ::1])",
)
def interpolate(offsets, timestamps, values, ends, lookback_ms, out, present):
    """Each series' value at every end, on the line between the samples around it.

    Samples count in (end - lookback_ms, end + lookback_ms]. Without a later one the latest is taken, without an
    earlier one there is none. Shapes as in `look_back`; stale markers have been removed.
    """
    for i in range(len(offsets) - 1):
        start = offsets[i]
        stop = offsets[i + 1]
        at = start - 1
        for k in range(len(ends)):
            end = ends[k]
            while at + 1 < stop and timestamps[at + 1] <= end:
                at += 1
            present[i, k] = at >= start and timestamps[at] > end - lookback_ms
            if not present[i, k]:
                continue
            before = values[at]
            if timestamps[at] == end or at + 1 >= stop or timestamps[at + 1] > end + lookback_ms:
                out[i, k] = before
            else:
                gone = float(end - timestamps[at]) / float(timestamps[at + 1] - timestamps[at])
                out[i, k] = before + (values[at + 1] - before) * gone
