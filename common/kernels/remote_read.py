"""Samples as the messages of remote read: `Sample { double value = 1; int64 timestamp = 2; }`."""

from __future__ import annotations

import numpy as np

from common.kernels.jit import kernel
from common.kernels.record import put_uvarint

SAMPLE_BYTES = 22
"""At most, with its tag and length."""


@kernel("int64(int64[::1], int64[::1], uint64[::1], boolean[::1], uint8[::1], int64[::1])")
def write_samples(offsets, timestamps, value_bits, left_out, out, ends):
    """Write the samples of each series as field 2 of a TimeSeries, one after another.

    offsets: int64 (n + 1,). timestamps, value_bits, left_out: (n_samples,); what is left out is not written.
    out: uint8, SAMPLE_BYTES a sample. ends: int64 (n,), written: where each series ends. Returns the size.
    """
    at = np.int64(0)
    for i in range(len(offsets) - 1):
        for k in range(offsets[i], offsets[i + 1]):
            if left_out[k]:
                continue
            out[at] = 0x12
            begin = at + 2
            out[begin] = 0x09
            bits = value_bits[k]
            for b in range(8):
                out[begin + 1 + b] = np.uint8((bits >> np.uint64(8 * b)) & np.uint64(255))
            out[begin + 9] = 0x10
            end = put_uvarint(out, begin + 10, np.uint64(timestamps[k]))
            out[at + 1] = np.uint8(end - begin)
            at = end
        ends[i] = at
    return at
