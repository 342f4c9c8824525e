"""Taking deleted samples out of columns."""

from __future__ import annotations

import numpy as np

from common.kernels.jit import kernel

NONE = np.uint32(0xFFFFFFFF)


@kernel("void(int64[::1], int64[::1], int64[::1], int64[::1], uint64[::1], int64, int64)")
def erase(rows, starts, cursor, times, bits, min_time, max_time):
    """Take the samples in the closed range [min_time, max_time] out of some rows, whose cursors move back.

    rows: (n,), which rows. starts: (n,), from where on in each. cursor: (n_rows,), end of each row.
    times, bits: the samples.
    """
    for i in range(rows.size):
        out = starts[i]
        for at in range(starts[i], cursor[rows[i]]):
            if not (min_time <= times[at] <= max_time):
                times[out] = times[at]
                bits[out] = bits[at]
                out += 1
        cursor[rows[i]] = out


@kernel(
    "int64(boolean[::1], int64, int64, uint32[::1], int64[::1], uint64[::1], "
    "uint32[::1], int64[::1], uint64[::1], uint32[::1], uint32[::1])"
)
def copy_kept(
    is_doomed, min_time, max_time, snos, times, bits, snos_out, times_out, bits_out, previous_out, tails
):
    """Copy the head without the samples of some series in the closed range; return how many are left.

    is_doomed: (n_series,). snos, times, bits: columns of the head, (n,); *_out have room for as many.
    previous_out, tails: set as `common.kernels.head.apply_samples` leaves them.
    """
    for i in range(snos.size):
        tails[snos[i]] = NONE
    out = 0
    for i in range(snos.size):
        if is_doomed[snos[i]] and min_time <= times[i] <= max_time:
            continue
        snos_out[out] = snos[i]
        times_out[out] = times[i]
        bits_out[out] = bits[i]
        previous_out[out] = tails[snos[i]]
        tails[snos[i]] = out
        out += 1
    return out
