"""Jump consistent hash over a column of keys."""

from __future__ import annotations

import numpy as np

from common.kernels.jit import kernel

_MULTIPLIER = np.uint64(2862933555777941757)
_ONE = np.uint64(1)
_SHIFT = np.uint64(33)


@kernel("void(Array(uint64, 1, 'C', readonly=True), int64, int32[::1])")
def jump_hash(keys, n_buckets, out):
    """Bucket in [0, n_buckets) of each key, into `out` of the same length; n_buckets is at least 1."""
    for i in range(keys.size):
        key = keys[i]
        bucket = 0
        jump = 0
        while jump < n_buckets:
            bucket = jump
            key = key * _MULTIPLIER + _ONE
            jump = int((bucket + 1) * (2147483648.0 / float((key >> _SHIFT) + _ONE)))
        out[i] = bucket
