"""Places of rows among samples."""

from __future__ import annotations

import numpy as np

from common.kernels.jit import kernel


@kernel("void(int64[::1], int64[::1], uint64[::1], int64[::1], int64[::1], uint64[::1], int64[::1])")
def locate(rows, times, bits, offsets, timestamps, value_bits, positions):
    """Where the samples with these times and value bits are.

    rows, times, bits: (n,), row of each wanted sample, its timestamp and value bits.
    offsets, timestamps, value_bits: samples by row, ascending in time within each.
    positions: int64 (n,), written: place of the sample, or -1 where there is none.
    """
    for i in range(len(rows)):
        low = offsets[rows[i]]
        end = offsets[rows[i] + 1]
        high = end
        while low < high:
            middle = (low + high) // 2
            if timestamps[middle] < times[i]:
                low = middle + 1
            else:
                high = middle
        found = low < end and timestamps[low] == times[i] and value_bits[low] == bits[i]
        positions[i] = low if found else np.int64(-1)
