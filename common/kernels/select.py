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
