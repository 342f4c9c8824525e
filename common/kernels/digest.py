"""The digest of a set of samples: a sum of hashes, so that it does not depend on order.

A sample is (series id as two uint64, timestamp as uint64, value bits). Each of the two lanes mixes all by
a finaliser of its own; no intermediate result is shared. Mixers: Steele, Lea, Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014, section 3; constants: David Stafford, "Better bit mixing", 2011, 13 and 4.
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import device, kernel

_A1 = np.uint64(0xBF58476D1CE4E5B9)
_A2 = np.uint64(0x94D049BB133111EB)
_B1 = np.uint64(0x62A9D9ED799705F5)
_B2 = np.uint64(0xCB24D0A5C88C35B3)
_SEED_A = np.uint64(0x9E3779B97F4A7C15)
_SEED_B = np.uint64(0xD1B54A32D192ED03)
_27 = np.uint64(27)
_28 = np.uint64(28)
_30 = np.uint64(30)
_31 = np.uint64(31)
_32 = np.uint64(32)
_33 = np.uint64(33)


@device
def lane_a(id_a, id_b, time, bits):
    """First lane of a sample's hash."""
    x = (time + _SEED_A) ^ id_a
    x = (x ^ (x >> _30)) * _A1
    x = (x ^ (x >> _27)) * _A2
    x = (x ^ (x >> _31)) + bits
    x = (x ^ (x >> _30)) * _A1
    x = (x ^ (x >> _27)) * _A2
    x = (x ^ (x >> _31)) ^ id_b
    x = (x ^ (x >> _30)) * _A1
    x = (x ^ (x >> _27)) * _A2
    return x ^ (x >> _31)


@device
def lane_b(id_a, id_b, time, bits):
    """Second lane of a sample's hash."""
    x = (bits + _SEED_B) ^ id_b
    x = (x ^ (x >> _33)) * _B1
    x = (x ^ (x >> _28)) * _B2
    x = (x ^ (x >> _32)) + time
    x = (x ^ (x >> _33)) * _B1
    x = (x ^ (x >> _28)) * _B2
    x = (x ^ (x >> _32)) ^ id_a
    x = (x ^ (x >> _33)) * _B1
    x = (x ^ (x >> _28)) * _B2
    return x ^ (x >> _32)


@kernel("void(uint64[:,::1], int64[::1], int64[::1], uint64[::1], int64[::1], uint64[:,::1], int64[::1])")
def digest_rows(ids, offsets, timestamps, value_bits, window_ends, lanes, counts):
    """Add the hashes and numbers of samples to their windows.

    ids: (n_rows, 2); offsets: (n_rows + 1,) into the samples. window_ends: (n_windows,) ascending, last ms of each
    window; every sample lies in one of them. lanes: (n_windows, 2) and counts: (n_windows,) are added to.
    """
    for row in range(ids.shape[0]):
        for i in range(offsets[row], offsets[row + 1]):
            window = np.searchsorted(window_ends, timestamps[i])
            time = np.uint64(timestamps[i])
            lanes[window, 0] += lane_a(ids[row, 0], ids[row, 1], time, value_bits[i])
            lanes[window, 1] += lane_b(ids[row, 0], ids[row, 1], time, value_bits[i])
            counts[window] += 1
